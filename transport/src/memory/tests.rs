use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use rustix::fs::fcntl_get_seals;

use super::*;
use crate::memory::Spans;

/// Says so even when the harness captures the output of a passing test.
fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

fn build(len: usize) -> Memory {
    HostMemory::new(len).build().expect("memory of a few pages")
}

fn duplicate(memory: &Memory) -> OwnedFd {
    memory.fd().expect("a memfd").try_clone_to_owned().expect("a free descriptor")
}

#[test]
fn seals_refuse_to_resize() {
    let memory = build(10_000);
    let descriptor = memory.fd().unwrap();
    assert_eq!(ftruncate(descriptor, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(descriptor, 1 << 20), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(descriptor, SealFlags::WRITE), Err(Errno::PERM));
    assert!(fcntl_get_seals(descriptor).unwrap().contains(SealFlags::SEAL));
}

#[test]
fn length_is_what_was_asked_for() {
    let memory = build(10_000);
    assert_eq!(memory.len(), 10_000);
    assert_eq!(memory.mapped_bytes() % rustix::param::page_size(), 0);
    assert_eq!(memory.as_ptr().addr() % rustix::param::page_size(), 0);
    assert_eq!(memory.backing().pages, Pages::Base);
}

#[test]
fn a_second_mapping_sees_writes() {
    let here = build(10_000);
    let there = Memory::map(duplicate(&here), 10_000, Access::ReadWrite).unwrap();
    let watcher = Memory::map(duplicate(&here), 10_000, Access::ReadOnly).unwrap();
    for (from, offset) in [(&here, 3), (&there, 5_001)] {
        let sent: Vec<u8> = (0..=255).collect();
        from.write_at(offset, &sent).unwrap();
        for to in [&here, &there, &watcher] {
            let mut got = vec![0; sent.len()];
            to.read_at(offset, &mut got).unwrap();
            assert_eq!(got, sent);
        }
    }
    assert!(matches!(watcher.write_at(0, &[1]), Err(MemoryError::ReadOnly)));
    assert!(matches!(watcher.fill(0..1, 1), Err(MemoryError::ReadOnly)));
}

#[test]
fn unsealed_descriptors_are_refused_and_given_back() {
    let memfd = memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memfd, 4096).unwrap();
    let refused = Memory::map(memfd, 4096, Access::ReadOnly).unwrap_err();
    assert!(matches!(refused.why, MemoryError::NotSealed));
    fcntl_add_seals(&refused.descriptor, SealFlags::SHRINK).unwrap();
    Memory::map(refused.descriptor, 4096, Access::ReadOnly).unwrap();

    let pipe = rustix::pipe::pipe().unwrap().0;
    let refused = Memory::map(pipe, 4096, Access::ReadOnly).unwrap_err();
    assert!(matches!(refused.why, MemoryError::NotSealed));
}

#[test]
fn short_descriptors_are_refused() {
    let page = rustix::param::page_size();
    let refused = Memory::map(duplicate(&build(page)), page + 1, Access::ReadOnly).unwrap_err();
    assert!(matches!(refused.why, MemoryError::TooShort { .. }), "{refused}");
}

#[test]
fn accesses_stay_in_bounds() {
    let memory = build(100);
    let outside = |answer| matches!(answer, Err(MemoryError::OutOfBounds { .. }));
    memory.write_at(90, &[7; 10]).unwrap();
    memory.write_at(100, &[]).unwrap();
    assert!(outside(memory.write_at(91, &[0; 10])));
    assert!(outside(memory.write_at(101, &[])));
    assert!(outside(memory.write_at(usize::MAX, &[0; 2])));
    assert!(outside(memory.read_at(99, &mut [0; 2])));
    assert!(outside(memory.fill(0..101, 0)));
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller's mistake looks like")]
    let reversed = 5..4;
    assert!(outside(memory.fill(reversed.clone(), 0)));
    // SAFETY: nobody writes to this memory while the slices are alive.
    unsafe {
        assert!(outside(memory.slice(reversed).map(|_| ())));
        assert!(outside(memory.slice(100..101).map(|_| ())));
        assert_eq!(memory.slice(89..100).unwrap(), [0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    }
}

#[test]
fn fill_sets_exactly_its_range() {
    let memory = build(20_000);
    memory.fill(3..10_001, 9).unwrap();
    // SAFETY: nobody writes to this memory while the slice is alive.
    let bytes = unsafe { memory.slice(0..20_000) }.unwrap();
    assert!(
        bytes.iter().enumerate().all(|(at, byte)| *byte == 9 * u8::from((3..10_001).contains(&at)))
    );
}

#[test]
fn zero_length_is_legal() {
    let memory = HostMemory::new(0).huge_pages().prefault().lock().build().unwrap();
    assert!(memory.is_empty());
    memory.write_at(0, &[]).unwrap();
    memory.read_at(0, &mut []).unwrap();
    memory.fill(0..0, 1).unwrap();
    assert!(memory.write_at(0, &[1]).is_err());
    assert!(Memory::map(duplicate(&memory), 0, Access::ReadWrite).unwrap().is_empty());
}

#[test]
fn sparse_memory_can_be_written_at_its_end() {
    let len = 5 << 30;
    let memory = HostMemory::new(len).sparse().build().unwrap();
    memory.write_at(len - 4, b"last").unwrap();
    let mut bytes = [0; 4];
    memory.read_at(len - 4, &mut bytes).unwrap();
    assert_eq!(&bytes, b"last");
}

#[test]
fn more_than_the_machine_has_is_refused() {
    for wish in [HostMemory::new(1 << 50), HostMemory::new(1 << 50).prefault().name("pool")] {
        let error = wish.build().unwrap_err();
        assert!(matches!(error, MemoryError::DoesNotFit { .. }), "{error}");
    }
    let error = HostMemory::new(usize::MAX).sparse().build().unwrap_err();
    assert!(matches!(error, MemoryError::Refused { .. }), "{error}");
}

#[test]
fn prefault_fills_pages_in_and_reports() {
    let len = PREFAULT_STEP_BYTES + 5;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&seen);
    let memory = HostMemory::new(len)
        .prefault_with(move |done, total| report.lock().unwrap().push((done, total)))
        .build()
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [(PREFAULT_STEP_BYTES, len), (len, len)]);
    let blocks = rustix::fs::fstat(memory.fd().unwrap()).unwrap().st_blocks;
    assert_eq!(blocks as usize * 512, memory.mapped_bytes());
}

#[test]
fn pages_are_made_around_bytes_that_begin_anywhere() {
    let (memory, mut steps) = (build(1 << 20), 0);
    let blocks = || rustix::fs::fstat(memory.fd().unwrap()).unwrap().st_blocks as usize * 512;
    let page = rustix::param::page_size();
    // SAFETY: the bytes are those of `memory`, which outlives this.
    let part = unsafe { Memory::foreign(memory.as_ptr().add(page + 5), 2 * page, Box::new(())) };
    part.make_pages(|| steps += 1);
    assert_eq!((blocks(), steps), (3 * page, 1));
    memory.make_pages(|| steps += 1);
    assert_eq!((blocks(), steps), (memory.mapped_bytes(), 2));
}

#[test]
fn touching_is_as_good_as_populating() {
    let memory = build(1 << 20);
    touch(&memory, 0, memory.mapped_bytes()).unwrap();
    let blocks = rustix::fs::fstat(memory.fd().unwrap()).unwrap().st_blocks;
    assert_eq!(blocks as usize * 512, memory.mapped_bytes());
}

#[test]
fn huge_pages_report_what_was_obtained() {
    let memory = HostMemory::new(3 << 20).huge_pages().prefault().build().unwrap();
    let backing = memory.backing();
    match backing.pages {
        Pages::Pool => assert_eq!(backing.shortfall, None),
        // As far as there is contiguous memory.
        Pages::Transparent => {}
        _ => assert!(backing.shortfall.is_some(), "{backing}"),
    }
    memory.write_at((3 << 20) - 1, &[1]).unwrap();
    let there = Memory::map(duplicate(&memory), memory.len(), Access::ReadWrite).unwrap();
    assert_eq!(there.backing().pages == Pages::Pool, backing.pages == Pages::Pool);
}

#[test]
fn transparent_huge_pages_are_had_without_being_configured() {
    // The last 3 MiB have one whole huge page, and a rest.
    let len = 7 << 20;
    let memory = HostMemory::new(len).name("collapsed").huge_pages().prefault().build().unwrap();
    let backing = memory.backing();
    if backing.pages != Pages::Transparent || backing.shortfall.is_some() {
        return skipped(&format!("no transparent huge pages: {backing}"));
    }
    assert!(memory.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (_, ours) = maps.split_once("/memfd:collapsed").expect("it is mapped");
    let field = |name: &str| {
        let line = ours.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<usize>().ok()
    };
    assert_eq!(field("ShmemPmdMapped:"), Some(6 << 10), "KiB in huge pages");
    assert_eq!(field("Rss:"), Some(7 << 10), "all of it is there");
    let mut zeros = vec![1; len];
    memory.read_at(0, &mut zeros).unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0));
}

#[test]
fn a_missing_numa_node_is_named() {
    let error = HostMemory::new(4096).numa_node(1_000_000).build().unwrap_err();
    assert!(matches!(error, MemoryError::NoSuchNode { node: 1_000_000, .. }), "{error}");
    match HostMemory::new(4096).numa_node(0).prefault().build() {
        Ok(memory) => memory.write_at(0, &[1]).unwrap(),
        Err(error) => skipped(&format!("binding to node 0: {error}")),
    }
}

#[test]
fn locking_beyond_the_limit_names_the_remedy() {
    HostMemory::new(4096).lock().build().unwrap();
    let Some(limit) = getrlimit(Resource::Memlock).current.filter(|limit| *limit <= 64 << 20)
    else {
        skipped("the memlock limit is too high to be exceeded here");
        return;
    };
    match HostMemory::new(limit as usize + 4096).lock().build() {
        Ok(_) => skipped("CAP_IPC_LOCK lifts the memlock limit"),
        Err(error) => assert!(error.to_string().contains("LimitMEMLOCK=infinity"), "{error}"),
    }
}

#[test]
fn foreign_memory_keeps_its_owner() {
    let owner = Arc::new(());
    let mut bytes = vec![0u8; 16];
    let at = bytes.as_mut_ptr();
    // SAFETY: the vector moves into the owner, which keeps its heap bytes where they are.
    let memory = unsafe { Memory::foreign(at, 16, Box::new((bytes, Arc::clone(&owner)))) };
    assert!(memory.fd().is_none());
    memory.write_at(1, &[1; 15]).unwrap();
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(memory);
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn bad_names_are_refused() {
    for name in ["a\0b", &"x".repeat(NAME_BYTES_MAX + 1)] {
        let error = HostMemory::new(1).name(name).build().unwrap_err();
        assert!(matches!(error, MemoryError::BadName { .. }), "{error}");
    }
    HostMemory::new(1).name(&"x".repeat(NAME_BYTES_MAX)).build().unwrap();
}

/// Memory of a device whose bytes are nowhere; nobody looks at the descriptor here.
fn on_device(len: usize) -> Memory {
    let descriptor = duplicate(&build(0));
    let address = std::ptr::without_provenance_mut(7 << 20);
    // SAFETY: no device is given it.
    unsafe { Memory::device(address, len, descriptor, 3 << 20, Box::new(())) }
}

#[test]
fn the_bytes_of_a_device_are_not_touched_from_here() {
    let memory = on_device(4096);
    assert!(!memory.is_host() && build(1).is_host());
    assert_eq!(
        (memory.len(), memory.address().addr(), memory.access()),
        (4096, 7 << 20, Access::ReadWrite)
    );
    assert!(memory.fd().is_none(), "no memfd that somebody could map");
    assert_eq!(memory.dma_buf().map(|(_, offset)| offset), Some(3 << 20));
    assert!(build(1).dma_buf().is_none());
    let mut bytes = [0xC5; 8];
    let mut spans = Spans::new();
    // SAFETY: the bytes are used through the spans only.
    unsafe { spans.push(bytes.as_mut_ptr(), bytes.len()) };
    let refused = [
        memory.write_at(0, &[1]).err(),
        memory.read_at(0, &mut [0]).err(),
        memory.fill(0..1, 1).err(),
        // SAFETY: nobody writes to it, as there is none.
        unsafe { memory.slice(0..1) }.err(),
        memory.copy_in(0, &[1]).err(),
        memory.copy_out(0, &mut [0]).err(),
        memory.checksum(0, 1).err(),
        memory.gather(0, &spans).err(),
        memory.scatter(0, &spans).err(),
        // Not even none of them.
        memory.write_at(0, &[]).err(),
    ];
    for (at, why) in refused.into_iter().enumerate() {
        let why = why.unwrap_or_else(|| panic!("access {at} is not refused"));
        assert!(matches!(why, MemoryError::OnDevice), "access {at}: {why}");
        assert!(why.to_string().contains("transfers over rails"), "{why}");
    }
    memory.make_pages(|| panic!("it has no pages to be made"));
    let pointer = catch_unwind(AssertUnwindSafe(|| memory.as_ptr()));
    assert!(pointer.is_err(), "a pointer that somebody might follow");
}

#[test]
fn what_keeps_the_bytes_of_a_device_goes_with_the_memory() {
    let owner = Arc::new(());
    let descriptor = duplicate(&build(0));
    // SAFETY: no device is given it.
    let memory = unsafe {
        Memory::device(std::ptr::null_mut(), 1, descriptor, 0, Box::new(Arc::clone(&owner)))
    };
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(memory);
    assert_eq!(Arc::strong_count(&owner), 1);
}
