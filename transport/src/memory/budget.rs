//! How much memory there is to take.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::MemoryError;

/// The memory of the machine, or of the control group if that has less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Memory installed or allowed, in bytes.
    total: u64,
    /// Memory that can be taken without swapping, in bytes.
    free: u64,
    /// Swap space, in bytes.
    swap: u64,
}

impl Budget {
    /// Reads `/proc/meminfo` (proc_meminfo(5)) and the limits of our control groups
    /// (cgroup v2, `memory.max` and `memory.current`). `None` if they cannot be read, and then
    /// nothing can be said about what fits.
    pub(super) fn read() -> Option<Budget> {
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        let machine = Self::parse_meminfo(&meminfo)?;
        Some(control_groups().iter().filter_map(|group| group_limit(group)).fold(
            machine,
            |least, (limit, used)| Budget {
                total: least.total.min(limit),
                free: least.free.min(limit.saturating_sub(used)),
                ..least
            },
        ))
    }

    fn parse_meminfo(meminfo: &str) -> Option<Budget> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib << 10)
        };
        Some(Budget {
            total: field("MemTotal:")?,
            free: field("MemAvailable:")?,
            swap: field("SwapTotal:").unwrap_or(0),
        })
    }

    /// Checks `len` bytes against what is free if every page will be touched now, or else against
    /// what could ever be held.
    pub(super) fn check(&self, name: &str, len: usize, touched: bool) -> Result<(), MemoryError> {
        let fits = if touched { self.free } else { self.total.saturating_add(self.swap) };
        if len as u64 <= fits {
            return Ok(());
        }
        Err(MemoryError::DoesNotFit {
            name: name.to_owned(),
            len_bytes: len as u64,
            total_bytes: self.total,
            free_bytes: self.free,
            fitting_bytes: self.free.checked_ilog2().map_or(0, |power| 1 << power),
        })
    }
}

/// Our cgroup v2 directory and its parents, innermost first.
fn control_groups() -> Vec<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let own = Path::new(ROOT).join(own);
    own.ancestors().take_while(|path| path.starts_with(ROOT)).map(Path::to_owned).collect()
}

/// Limit and use of one control group in bytes, if it has a limit.
fn group_limit(group: &Path) -> Option<(u64, u64)> {
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(group.join(file)).ok()?.trim().parse().ok() // "max" is no limit
    };
    Some((number("memory.max")?, number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_says_what_would() {
        let budget = Budget { total: 23 << 30, free: (20 << 30) + (1 << 30) / 8, swap: 0 };
        assert!(budget.check("arena", 20 << 30, true).is_ok());
        assert!(budget.check("arena", 22 << 30, false).is_ok());
        assert_eq!(
            budget.check("arena", 64 << 30, true).unwrap_err().to_string(),
            "arena of 64 GiB does not fit: 23 GiB of memory, 20.1 GiB free; use 16 GiB or less",
        );
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:   20 kB\n";
        let budget = Budget::parse_meminfo(text).unwrap();
        assert_eq!((budget.total, budget.free, budget.swap), (100 << 10, 20 << 10, 0));
        assert!(Budget::read().is_some_and(|here| here.free > 0 && here.free <= here.total));
    }
}
