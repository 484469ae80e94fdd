//! What this machine can do for the NVMe tier.

use std::path::{Path, PathBuf};

use tranship_cache::tier::nvme::disk::probe::{Probe, probe};

use super::{Finding, State, limits};
use crate::config::Config;

/// Where the log is or will be; where temporary files are, if there shall be none.
pub(super) fn place(config: &Config) -> PathBuf {
    let Some(path) = config.nvme.path.as_ref() else { return std::env::temp_dir() };
    let path = path.path();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match path.is_dir() {
        true => path.to_owned(),
        false => parent.unwrap_or(Path::new(".")).to_owned(),
    }
}

/// io_uring, registered buffers, direct reads and writes, the limit of locked memory, and polling, on
/// the device and file system of `directory`.
pub(super) fn nvme(arena_bytes: u64, directory: &Path) -> Finding {
    let memlock = limits::memlock(arena_bytes);
    judge(&probe(directory), &memlock, directory)
}

/// The worst of what was found gives the remedy; polling alone is nobody's need.
fn judge(probe: &Probe, memlock: &Finding, directory: &Path) -> Finding {
    let place = directory.display();
    let polling = match &probe.iopoll {
        Ok(()) => "IOPOLL works there".to_owned(),
        Err(why) => format!("no IOPOLL: {why}"),
    };
    match probe {
        Probe { uring: Err(why), .. } => {
            Finding::warning("nvme", format!("threads in place of io_uring: {why}"))
        }
        Probe { direct: Err(why), .. } => Finding::warning("nvme", why.clone())
            .remedy("give the tier a path on a disk, with ext4 or xfs, or a block device"),
        Probe { registered: Err(why), .. } => Finding::warning(
            "nvme",
            format!("io_uring and O_DIRECT in {place}, no registered buffers: {why}"),
        )
        .remedy("LimitMEMLOCK=infinity or ulimit -l unlimited; Linux 5.19 or later"),
        _ if memlock.state == State::Warning => {
            let why = &memlock.detail;
            Finding::warning("nvme", format!("io_uring and O_DIRECT in {place}; memlock of {why}, which will not be registered"))
                .remedy("LimitMEMLOCK=infinity or ulimit -l unlimited")
        }
        _ => Finding::ready(
            "nvme",
            format!("io_uring, registered buffers and O_DIRECT in {place}; {polling}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe_of(failed: &str) -> Probe {
        let part = |name: &str| if name == failed { Err("it is not".to_owned()) } else { Ok(()) };
        let [uring, registered, direct, iopoll] =
            ["uring", "registered", "direct", "iopoll"].map(part);
        Probe { uring, registered, direct, iopoll }
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let enough = Finding::ready("memlock", "unlimited");
        let judge = |failed| judge(&probe_of(failed), &enough, Path::new("/var"));
        assert_eq!(judge("").state, State::Ready);
        assert!(judge("").detail.contains("O_DIRECT in /var; IOPOLL works there"));
        let polled = judge("iopoll");
        assert_eq!(polled.state, State::Ready, "nobody needs it");
        assert!(polled.detail.contains("no IOPOLL: it is not"));
        for failed in ["uring", "registered", "direct"] {
            let finding = judge(failed);
            assert_eq!(finding.state, State::Warning);
            assert!(finding.detail.contains("it is not"), "{}", finding.detail);
        }
    }

    #[test]
    fn an_arena_beyond_the_memlock_limit_is_a_warning() {
        let short = Finding::warning("memlock", "8 MiB is below the 4 GiB arena");
        let finding = judge(&probe_of(""), &short, Path::new("/var"));
        assert_eq!(finding.state, State::Warning);
        assert!(finding.detail.contains("8 MiB is below the 4 GiB arena"), "{}", finding.detail);
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("LimitMEMLOCK")));
    }

    #[test]
    fn this_machine_is_examined() {
        let finding = nvme(1 << 20, &std::env::temp_dir());
        assert_eq!(finding.name, "nvme");
        assert!(!finding.detail.is_empty());
    }
}
