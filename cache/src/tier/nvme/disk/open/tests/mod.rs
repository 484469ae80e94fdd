//! What is opened, what is refused and in which words, and that nothing is ever overwritten.

mod devices;
mod engines;
mod faults;
mod files;
mod loops;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::*;

const MIB: u64 = 1 << 20;

/// Says so even when the harness captures the output of a passing test.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The line that refuses a path.
fn refusal(path: &Path, options: &Options) -> String {
    refusal_of(&Target::new(path), options)
}

fn refusal_of(target: &Target, options: &Options) -> String {
    let text = match open(target, options) {
        Ok(disk) => panic!("{} was opened", disk.describe()),
        Err(error) => error.to_string(),
    };
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn made(path: &Path, bytes: u64) -> Box<dyn Disk> {
    open(&Target::new(path), &Options::new(bytes).create()).expect("a new file")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
