//! Processes that must not outlive the one that started them.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Ends this process when `parent`, which started it, ends (`PR_SET_PDEATHSIG` of prctl(2)).
///
/// # Errors
/// When `parent` has ended already, or is not our parent.
pub(crate) fn end_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the call above.
    let ours = getppid().map(Pid::as_raw_pid);
    if ours == i32::try_from(parent).ok() {
        Ok(())
    } else {
        Err(io::Error::other(format!("process {parent} is not the parent of this one")))
    }
}
