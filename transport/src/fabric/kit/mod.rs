//! What the tests of fabrics share: fabrics without an engine, two or more in one process, polled in
//! turns, or one process each.

mod node;
mod other;
mod pair;

use std::ops::Range;
use std::time::Duration;

pub(super) use node::{Node, Subject, sleep_until, told, wait};
pub(super) use other::{ADDRESS_ENV, Other};
pub(super) use pair::{Pair, connect, until};

use super::{Local, RegionId, Remote, Work};
use crate::immediate::Immediate;
use crate::memory::Memory;
use crate::window::Access;

pub(super) const ALL: fn() -> Access = || Access::WRITE | Access::READ;
/// How long a test waits before it calls that a hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Local bytes.
pub(super) fn local(region: RegionId, memory: &Memory, range: Range<u64>) -> Local {
    assert!(range.end <= memory.len() as u64);
    // SAFETY: inside of the memory.
    let ptr = unsafe { memory.as_ptr().add(range.start as usize) };
    Local { region, ptr, len: range.end - range.start }
}

pub(super) fn write(local: Local, remote: Remote, immediate: Option<u32>) -> Work<'static> {
    Work::Write { local, remote, pages: None, immediate: immediate.map(Immediate) }
}

pub(super) fn read(local: Local, remote: Remote) -> Work<'static> {
    Work::Read { local, remote, pages: None, immediate: None }
}

pub(super) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(super) fn bytes(memory: &Memory, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; range.len()];
    memory.read_at(range.start, &mut bytes).unwrap();
    bytes
}
