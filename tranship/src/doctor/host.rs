//! The machine: kernel, cores, memory.

use std::fs;

use serde::{Serialize, Serializer};

use crate::units::Size;

/// The machine and this build.
#[derive(Debug, Serialize)]
pub struct Host {
    /// Version of this build.
    pub version: &'static str,
    /// `linux`.
    pub system: &'static str,
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture.
    pub arch: &'static str,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory, if the system tells.
    pub memory: Option<Memory>,
}

/// Memory this process can count on: of the machine, or of its cgroup if that has less.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// All of it.
    #[serde(rename = "total_bytes", serialize_with = "as_bytes")]
    pub total: Size,
    /// What new allocations can take without swapping.
    #[serde(rename = "available_bytes", serialize_with = "as_bytes")]
    pub available: Size,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn as_bytes<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(size.bytes())
}

impl Host {
    pub(super) fn examine() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            system: std::env::consts::OS,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            arch: std::env::consts::ARCH,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(),
        }
    }
}

/// Reads `/proc/meminfo` (proc(5)) and the limits of the own cgroup (v2).
#[must_use]
pub fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let machine =
        Memory { total: field(&text, "MemTotal")?, available: field(&text, "MemAvailable")? };
    Some(match cgroup() {
        Some(group) => Memory {
            total: machine.total.min(group.total),
            available: machine.available.min(group.available),
        },
        None => machine,
    })
}

/// A `Name:   123 kB` line.
fn field(text: &str, name: &str) -> Option<Size> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024).map(Size::new)
}

/// The memory limit of this process's cgroup, if it has one.
fn cgroup() -> Option<Memory> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let directory = std::path::Path::new("/sys/fs/cgroup").join(path);
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
    };
    let (max, current) = (read("memory.max")?, read("memory.current")?);
    Some(Memory { total: Size::new(max), available: Size::new(max.saturating_sub(current)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_lines_are_read() {
        let text = "MemTotal:       24576 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(field(text, "MemTotal"), Some(Size::mib(24)));
        assert_eq!(field(text, "MemAvailable"), Some(Size::mib(2)));
        assert_eq!(field(text, "Mem"), None);
    }
}
