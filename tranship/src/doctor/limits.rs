//! Limits of the system that the configuration runs into.

use std::fs;

use rustix::process::{Resource, getrlimit};
use tranship_transport::HostMemory;

use super::{Finding, disks, host};
use crate::config::Config;
use crate::units::human;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let arena_bytes = config.dram.capacity.bytes();
    vec![
        memory(arena_bytes),
        memlock(arena_bytes),
        huge_pages(arena_bytes),
        shared_memory_mount(),
        disks::nvme(arena_bytes, &disks::place(config)),
    ]
}

fn memory(arena_bytes: u64) -> Finding {
    let arena = human::size(arena_bytes);
    match host::memory() {
        None => Finding::warning("memory", "cannot be read from /proc/meminfo"),
        Some(memory) if memory.available.bytes() < arena_bytes => {
            let free = human::size(memory.available.bytes());
            Finding::warning("memory", format!("{free} free is below the {arena} arena"))
                .remedy("lower dram.capacity")
        }
        Some(memory) => {
            let free = human::size(memory.available.bytes());
            Finding::ready("memory", format!("{free} free for the {arena} arena"))
        }
    }
}

/// Whether the arena could be locked into memory.
pub(super) fn memlock(arena_bytes: u64) -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    match limit {
        None => Finding::ready("memlock", "unlimited"),
        Some(_) if may_lock_memory() => Finding::ready("memlock", "unlimited by CAP_IPC_LOCK"),
        Some(bytes) if bytes >= arena_bytes => Finding::ready("memlock", human::size(bytes)),
        Some(bytes) => Finding::warning(
            "memlock",
            format!("{} is below the {} arena", human::size(bytes), human::size(arena_bytes)),
        )
        .remedy("LimitMEMLOCK=infinity or ulimit -l unlimited"),
    }
}

/// Whether this process has `CAP_IPC_LOCK`, which lifts the limit: capabilities(7).
fn may_lock_memory() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        })
        .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

fn huge_pages(arena_bytes: u64) -> Finding {
    const PAGE_BYTES: u64 = 2 << 20;
    const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("{POOL}/{name}")).ok()?.trim().parse().ok()
    };
    let (total, free) = (read("nr_hugepages").unwrap_or(0), read("free_hugepages").unwrap_or(0));
    let needed = arena_bytes.div_ceil(PAGE_BYTES);
    let remedy = format!("sysctl vm.nr_hugepages={}", total.saturating_sub(free) + needed);
    let detail = format!("{} of {} pages of 2 MiB free", human::count(free), human::count(total));
    match free {
        _ if free >= needed => Finding::ready("huge pages", detail),
        0 if has_transparent() => {
            let detail =
                format!("{detail}; transparent ones will be used, as far as there are any");
            Finding::ready("huge pages", detail)
        }
        0 => Finding::absent("huge pages", format!("{detail}; small pages will be used"))
            .remedy(remedy),
        _ => Finding::warning(
            "huge pages",
            format!("{detail}, {} needed; small pages will be used", human::count(needed)),
        )
        .remedy(remedy),
    }
}

/// Whether shared memory can be put into transparent huge pages: it is tried.
fn has_transparent() -> bool {
    let memory = HostMemory::new(2 << 20).name("doctor").huge_pages().prefault().build();
    memory.is_ok_and(|memory| memory.backing().is_huge())
}

/// Room for POSIX shared memory: memfds do not come from there, what engines use may.
fn shared_memory_mount() -> Finding {
    /// Less room than this and programs that use it start to fail.
    const ROOM_BYTES_MIN: u64 = 64 << 20;
    match rustix::fs::statvfs("/dev/shm") {
        Err(error) => Finding::absent("/dev/shm", error.to_string()).remedy("mount a tmpfs there"),
        Ok(stat) => {
            let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
            let detail = format!("{} of {} free", human::size(free), human::size(total));
            match free {
                ROOM_BYTES_MIN.. => Finding::ready("/dev/shm", detail),
                _ => Finding::warning(
                    "/dev/shm",
                    format!("{detail}; tranship needs none (memfd), engines may"),
                )
                .remedy("remove stale files or mount -o remount,size=1G /dev/shm"),
            }
        }
    }
}
