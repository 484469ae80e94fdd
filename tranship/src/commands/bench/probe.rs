//! A short look at what the shm fabric does on this machine, for `doctor`.

use std::time::Duration;

use super::child::PeerArgs;
use super::rails::Rails;
use crate::bench::child::Other;
use crate::bench::transport::{Bench, Fabric, Op};
use crate::bench::{Error, Line, Plan};
use crate::doctor::Speed;

/// Time for each of the two figures.
const TIME: Duration = Duration::from_millis(40);
/// Enough to tell, little enough to be had at once.
const WORKING_SET_BYTES: u64 = 16 << 20;
/// Large writes run at the speed of memory, small ones show what a message costs.
const LARGE_BYTES: u64 = 1 << 20;
const SMALL_BYTES: u64 = 64;

/// Measures writes to a second process: `bench transport`, in a tenth of a second.
///
/// # Errors
/// When there is no second process, or it cannot be written to.
pub(in crate::commands) fn shm() -> Result<Speed, Error> {
    // Busy polling would be faster on a quiet machine, and tell of nothing but the scheduler on any
    // other.
    let plan = Plan { time: TIME, busy: false, working_set: WORKING_SET_BYTES };
    let write = measure(plan, Op::Write, LARGE_BYTES)?;
    // All pieces are visited before any is measured, so a ping-pong gets few.
    let pong = measure(Plan { working_set: 0, ..plan }, Op::Pingpong, SMALL_BYTES)?;
    Ok(Speed {
        gb_per_s: write.throughput.map_or(0.0, |throughput| throughput.gb_per_s),
        one_way_us: pong.p50_us,
    })
}

fn measure(plan: Plan, op: Op, size: u64) -> Result<Line, Error> {
    let other = Other::start(PeerArgs::command_line("shm", &Rails::default(), None, plan.busy))?;
    let lines = Bench::new(Fabric::Shm, plan, 0, other)?.measure(op, size, 1)?;
    Ok(lines.into_iter().next().expect("a line for each operation"))
}
