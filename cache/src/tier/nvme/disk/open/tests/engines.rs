//! Which engine it becomes, and that a slower one is never taken in silence.

use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tranship_transport::memory::HostMemory;

use super::super::super::tests::directory;
use super::*;

/// Whether this machine has io_uring at all.
fn has_uring() -> bool {
    super::super::super::probe::probe(Path::new("/")).uring.is_ok()
}

#[test]
fn io_uring_is_taken_where_it_is_to_be_had() {
    let place = directory();
    if !has_uring() {
        return skipped("no io_uring here");
    }
    let memory = Arc::new(HostMemory::new(4 << 20).build().unwrap());
    let target = Target::new(place.path().join("nvme"));
    let options = Options::new(MIB).create().memories([memory]);
    let disk = open(&target, &options).unwrap();
    let text = disk.describe();
    assert!(text.starts_with("io_uring, O_DIRECT, 4 MiB of registered buffers, /"), "{text}");
}

#[test]
fn where_io_uring_is_denied_threads_say_why() {
    let place = directory();
    let path = place.path().join("nvme");
    // The filter is this thread's alone, and ends with it.
    thread::spawn(move || {
        deny_io_uring();
        let target = Target::new(path);
        let text = refusal_of(&target, &Options::new(MIB).create().engine(Engine::Uring));
        assert!(text.contains("no io_uring: ") && text.contains("a sandbox denies it"), "{text}");
        let disk = open(&target, &Options::new(MIB).create()).unwrap();
        let text = disk.describe();
        assert!(text.starts_with("8 threads (no io_uring: "), "{text}");
    })
    .join()
    .unwrap();
}

/// Lets no call of io_uring_setup through: seccomp(2).
#[expect(unsafe_code, reason = "what a sandbox does takes two plain calls")]
fn deny_io_uring() {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = libc::SYS_io_uring_setup as u32;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: both calls change the calling thread alone; the program outlives the second.
    let answers = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
        ]
    };
    assert_eq!(answers, [0, 0]);
}

#[test]
fn memory_beyond_the_memlock_limit_is_used_unregistered() {
    let place = directory();
    if !has_uring() {
        return skipped("no io_uring here");
    }
    let limit = getrlimit(Resource::Memlock).current;
    let Some(limit) = limit.filter(|limit| *limit <= 256 * MIB) else {
        return skipped("the memlock limit is too high to be exceeded here");
    };
    let path = place.path().join("nvme");
    // The capability is given up by this thread alone.
    let described = thread::spawn(move || {
        let mut held = capabilities(None).unwrap();
        held.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, held).unwrap();
        let small = Arc::new(HostMemory::new(64 << 10).build().unwrap());
        let large = Arc::new(HostMemory::new((limit + MIB) as usize).build().unwrap());
        let options = Options::new(MIB).create().engine(Engine::Uring);
        let mut disk =
            open(&Target::new(path), &options.memories([Arc::clone(&large), small])).unwrap();
        let text = disk.describe();
        // What is not registered is read into all the same.
        let kind =
            super::super::super::Kind::Read { at: 0, into: crate::tier::Span::new(large, 0..MIB) };
        disk.submit(super::super::super::Op { token: 1, lane: crate::tier::Lane::Demand, kind })
            .unwrap();
        let mut ended = Vec::new();
        while ended.is_empty() {
            disk.wait(std::time::Duration::from_secs(10));
            disk.poll(&mut ended);
        }
        assert_eq!(ended[0].result, Ok(()));
        text
    });
    let text = described.join().unwrap();
    assert!(
        text.contains("LimitMEMLOCK=infinity") && text.contains("ulimit -l unlimited"),
        "{text}"
    );
    assert!(text.contains(&format!("0 of {} MiB registered", (limit >> 20) + 1)), "{text}");
}

#[test]
fn polling_that_the_device_cannot_do_is_not_used() {
    let place = directory();
    if !has_uring() {
        return skipped("no io_uring here");
    }
    let target = Target::new(place.path().join("nvme"));
    let options = Options::new(MIB).create().engine(Engine::Uring);
    let text = open(&target, &options.clone().iopoll()).unwrap().describe();
    let can = super::super::super::probe::probe(place.path()).iopoll;
    match can {
        Ok(()) => assert!(text.starts_with("io_uring with IOPOLL"), "{text}"),
        Err(why) => assert!(text.contains(&format!("(no IOPOLL: {why})")), "{text}"),
    }
    let text = open(&target, &options.sqpoll()).unwrap().describe();
    assert!(text.starts_with("io_uring with SQPOLL"), "{text}");
}

#[test]
fn the_page_cache_is_announced() {
    let place = directory();
    let target = Target::new(place.path().join("nvme"));
    let text = open(&target, &Options::new(MIB).create().buffered()).unwrap().describe();
    assert!(text.contains("8 threads (as asked for), through the page cache"), "{text}");
}
