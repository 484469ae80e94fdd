//! Peers in processes of their own, to be stopped and killed.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::address::Address;

/// Where the other process finds whom to dial; an ordinary run of the tests has it not.
pub(crate) const ADDRESS_ENV: &str = "TRANSHIP_TEST_ADDRESS";

/// The other process, which does not outlive a test that fails.
pub(crate) struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    /// Starts this program again for one test alone, which is told an address and more.
    pub(crate) fn start(test: &str, address: &Address, more: &[(&str, &str)]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--test-threads=1"])
            .env(ADDRESS_ENV, address.to_string())
            .envs(more.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until it has been stopped, or has stopped itself.
    pub(crate) fn stopped(&self) {
        let options = WaitOptions::UNTRACED;
        let (_, status) = waitpid(Some(Pid::from_child(&self.0)), options).unwrap().unwrap();
        assert!(status.stopped());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) {
        self.0.wait().unwrap();
    }
}
