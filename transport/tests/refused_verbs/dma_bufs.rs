//! Memory of devices. The guest's `vgem` exports real dma-bufs; Soft-RoCE, whose processor copies, takes none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tranship_transport::fabric::tcp;
use tranship_transport::{Access, Engine, HostMemory, Memory, Outcome, RegionError};

use super::verbs_kit::{AMPLE, Pair, calm, can_run, config};
use super::{Other, is_one_line, listen, until};

const BYTES: usize = 1 << 20;
/// Where no device has anything.
const ADDRESS: usize = 0x7e00_0000_0000;

/// A dma-buf of [`BYTES`], which the driver `vgem` exports of a buffer that it makes for whoever asks (drm(7)).
fn export() -> Result<OwnedFd, String> {
    /// `struct drm_mode_create_dumb` and `struct drm_prime_handle` of `drm/drm_mode.h` and `drm/drm.h`.
    #[repr(C)]
    #[derive(Default)]
    struct Dumb {
        height: u32,
        width: u32,
        bits: u32,
        flags: u32,
        handle: u32,
        pitch: u32,
        size: u64,
    }
    #[repr(C)]
    struct Prime {
        handle: u32,
        flags: u32,
        descriptor: i32,
    }
    const CREATE_DUMB: libc::c_ulong = 0xc020_64b2;
    const HANDLE_TO_DESCRIPTOR: libc::c_ulong = 0xc00c_642d;
    let none = |error: io::Error| format!("no dma-bufs: the driver vgem is not there ({error})");
    let cards = fs::read_dir("/sys/devices/platform/vgem/drm").map_err(none)?;
    let name = |it: io::Result<fs::DirEntry>| it.ok()?.file_name().into_string().ok();
    let card = cards.filter_map(name).find(|it| it.starts_with("card"));
    let card = card.ok_or("no dma-bufs: vgem has no card")?;
    let card = File::options().read(true).write(true).open(format!("/dev/dri/{card}"));
    let card = card.map_err(|error| format!("no dma-bufs: vgem's card: {error}"))?;
    let call = |what: &str, answer: libc::c_int| match answer {
        0 => Ok(()),
        _ => Err(format!("no dma-bufs: {what}: {}", io::Error::last_os_error())),
    };
    let mut dumb = Dumb { height: 1, width: BYTES as u32 / 4, bits: 32, ..Dumb::default() };
    // SAFETY: the kernel reads and fills in the structure, which has the size that the number says.
    let made = unsafe { libc::ioctl(card.as_raw_fd(), CREATE_DUMB as _, &raw mut dumb) };
    call("a buffer", made)?;
    assert!(dumb.size >= BYTES as u64, "{} bytes", dumb.size);
    let flags = (libc::O_CLOEXEC | libc::O_RDWR).cast_unsigned();
    let mut prime = Prime { handle: dumb.handle, flags, descriptor: -1 };
    // SAFETY: as above.
    let made = unsafe { libc::ioctl(card.as_raw_fd(), HANDLE_TO_DESCRIPTOR as _, &raw mut prime) };
    call("its dma-buf", made)?;
    // SAFETY: the kernel opened it a moment ago, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(prime.descriptor) })
}

fn on_device(address: usize, descriptor: impl AsFd, offset: u64) -> Arc<Memory> {
    let descriptor = descriptor.as_fd().try_clone_to_owned().unwrap();
    let address = std::ptr::without_provenance_mut(address);
    // SAFETY: a dma-buf keeps its bytes, and nothing is made of what is none.
    Arc::new(unsafe { Memory::device(address, BYTES - 8192, descriptor, offset, Box::new(())) })
}

/// Says so if there are none.
fn exported() -> Option<OwnedFd> {
    export().map_err(|why| drop(writeln!(io::stderr(), "skipped: {why}"))).ok()
}

/// Why it is not registered. It comes back, and nothing of it stays behind.
fn refusal(engine: &Engine, memory: &Arc<Memory>) -> String {
    let error = engine.register(Arc::clone(memory)).expect_err("no driver takes it");
    let line = error.to_string();
    assert!(matches!(error, RegionError::Fabric { .. }), "{line}");
    drop(error);
    assert_eq!(Arc::strong_count(memory), 1, "somebody keeps it");
    line
}

#[test]
fn memory_of_a_device_is_refused_where_the_driver_takes_no_dma_bufs() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::of(config(&["rxec"]), config(&["rxed"])));
    let pair = Pair::of(config(&["rxea"]), config(&["rxeb"]));

    // What is no dma-buf, and what lies in it as no hardware can have it.
    let memfd = HostMemory::new(BYTES).build().unwrap();
    let line = refusal(&pair.a, &on_device(ADDRESS, memfd.fd().unwrap(), 4096));
    is_one_line(
        &line,
        &["verbs fabric: rxea:1: descriptor ", "is no dma-buf", "cuMemGetHandleForAddressRange"],
    );
    other.goes_on();

    let Some(dma_buf) = exported() else { return };
    let line = refusal(&pair.a, &on_device(ADDRESS + 8, &dma_buf, 4096));
    is_one_line(&line, &["rxea:1: ", "0x7e0000000008", "4096 bytes into", "page of 4096 bytes"]);

    // A dma-buf that a driver could take.
    let memory = on_device(ADDRESS, &dma_buf, 4096);
    let parts = [
        "verbs fabric: rxea:1: ibv_reg_dmabuf_mr of 1040384 bytes of a device's memory",
        "(os error 95)",
        "the driver of rxea:1, or rdma-core, takes no dma-bufs",
        "rdma-core 34 or later and, for mlx5, Linux 5.12 or later",
        "copy to host memory and register that",
    ];
    is_one_line(&refusal(&pair.a, &memory), &parts);
    // A fabric beside it that does not reach it either is no way out.
    let both = Engine::builder().fabric(tcp::Config::new()).fabric(config(&["rxea"]));
    is_one_line(&refusal(&both.build().unwrap(), &memory), &parts);
    other.goes_on();

    // Host memory is registered after that as before, and moves by a rail.
    let mut pair = Other::new(pair);
    let (region, memory) = (pair.pair.a.alloc(HostMemory::new(BYTES)).unwrap(), memory);
    is_one_line(&refusal(&pair.pair.a, &memory), &parts);
    region.close(AMPLE).unwrap();
    pair.goes_on();
    other.goes_on();
}

/// Registrations that a device has.
fn registrations(device: &str) -> u64 {
    let output = Command::new("rdma").args(["resource", "show", device]).output().expect("rdma");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "mr");
    let count = at.and_then(|at| words.get(at + 1)?.parse().ok());
    count.unwrap_or_else(|| panic!("no registrations in: {text}"))
}

/// With a driver that takes dma-bufs, which is played: the bytes are this process's all the same.
#[test]
fn memory_of_a_device_moves_where_the_driver_takes_dma_bufs() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let Some(dma_buf) = exported() else { return };
    // SAFETY: what this test calls a device's is its own.
    let played = |device| unsafe { config(&[device]).plays_dma_bufs() };
    let pair = Pair::of(played("rxea"), played("rxeb"));
    let counter = pair.b.counter().unwrap();
    let (_window, to_host) = pair.offer();
    pair.round(&to_host, 1, &counter, || {});

    let memory = |_| Arc::new(HostMemory::new(BYTES).build().unwrap());
    let bytes: [Arc<Memory>; 2] = std::array::from_fn(memory);
    let lend = |bytes: &Arc<Memory>, range: Range<usize>, dma_buf: &OwnedFd| {
        let owner = Box::new(Arc::clone(bytes));
        let address = bytes.as_ptr().wrapping_add(range.start);
        let (dma_buf, offset) = (dma_buf.try_clone().unwrap(), range.start as u64);
        // SAFETY: the bytes are there as long as their owner.
        Arc::new(unsafe { Memory::device(address, range.len(), dma_buf, offset, owner) })
    };
    let ours = pair.a.register(lend(&bytes[0], 0..BYTES, &dma_buf)).unwrap();
    let theirs = pair.b.register(lend(&bytes[1], 0..BYTES, &dma_buf)).unwrap();
    let len = BYTES as u64;
    // A part of it, which begins anywhere.
    let window = theirs.window_with(1000..len, Access::WRITE | Access::READ).unwrap();
    let to = pair.a.open(&window.descriptor()).unwrap();
    let mut sent = vec![0; BYTES];
    Pcg64Mcg::seed_from_u64(2).fill_bytes(&mut sent);
    bytes[0].write_at(0, &sent).unwrap();
    let (from, into) = (ours.slice(0..len - 1000).unwrap(), to.slice(0..len - 1000).unwrap());
    let before = counter.count();
    let write = pair.a.write(from, into).immediate(counter.slot()).deadline(AMPLE);
    assert_eq!(write.wait(), Outcome::Done);
    assert_eq!(counter.wait(before + 1, AMPLE).unwrap(), before + 1);
    let mut landed = vec![0; BYTES];
    bytes[1].read_at(0, &mut landed).unwrap();
    assert!(landed[1000..] == sent[..BYTES - 1000], "other bytes");
    assert!(landed[..1000].iter().all(|byte| *byte == 0), "beyond the window");
    bytes[0].fill(0..BYTES, 0).unwrap();
    let (from, into) = (to.slice(0..len - 1000).unwrap(), ours.slice(1000..len).unwrap());
    assert_eq!(pair.a.read(from, into).deadline(AMPLE).wait(), Outcome::Done);
    let mut back = vec![0; BYTES];
    bytes[0].read_at(0, &mut back).unwrap();
    assert!(back[1000..] == sent[..BYTES - 1000], "other bytes");
    assert_eq!(pair.a.stats().fallbacks, 0, "by a rail");

    // A part of the same buffer shares the registration. Another buffer does not, whatever its addresses are,
    // nor does host memory.
    let count = registrations("rxea");
    let part = pair.a.register(lend(&bytes[0], 8192..100_000, &dma_buf)).unwrap();
    assert_eq!(registrations("rxea"), count, "it is shared");
    let another = pair.a.register(lend(&bytes[0], 8192..100_000, &export().unwrap())).unwrap();
    assert_eq!(registrations("rxea"), count + 1);
    let host = pair.a.register(Arc::clone(&bytes[0])).unwrap();
    assert_eq!(registrations("rxea"), count + 2);
    for region in [part, another, host] {
        region.close(AMPLE).unwrap();
    }
    until("the regions are forgotten", || {
        pair.a.progress();
        registrations("rxea") == count
    });
    let (from, into) = (ours.slice(0..1000).unwrap(), to.slice(0..1000).unwrap());
    assert_eq!(pair.a.write(from, into).deadline(AMPLE).wait(), Outcome::Done);
    window.revoke_within(AMPLE).unwrap();
    ours.close(AMPLE).unwrap();
    theirs.close(AMPLE).unwrap();
    pair.round(&to_host, 3, &counter, || {});
    assert_eq!(pair.a.stats().fallbacks, 0, "by a rail");
}
