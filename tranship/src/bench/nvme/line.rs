//! One line of the result.

use serde::Serialize;
use tranship_transport::memory::Backing;

use super::content::Checksums;
use super::fio::MISSING;
use super::load::{Stream, Way};
use super::{Plan, Sample, Turns};
use crate::bench::line::{Beside, Latency, Load, Noise};

/// What the results count, for their readers.
pub const RULE: &str = "payload bytes count once; 1 GB is 10^9 bytes; all of ours is checksummed with CRC-64 unless told not to; \
     limit: fio on the same file, in turns, with memory of the same kind, without checksums";

/// One line of the result.
#[derive(Debug, Serialize)]
pub struct Line {
    /// `nvme`.
    pub bench: &'static str,
    /// `read`, `write` or `lanes`.
    pub op: &'static str,
    /// Bytes of one operation.
    pub size: u64,
    /// Operations in flight.
    pub depth: u32,
    /// 10⁹ payload bytes a second, the median of the turns.
    pub gb_per_s: f64,
    /// Seconds of processor time for 10⁹ bytes, user and system, checksums included.
    pub cpu_s_per_gb: f64,
    /// What `p50_us` and `p99_us` are of.
    pub latency: Latency,
    /// Half of the operations took no longer, µs: the median of the turns.
    pub p50_us: f64,
    /// 99 of 100 took no longer, µs.
    pub p99_us: f64,
    /// Operations measured.
    pub n: u64,
    /// The same by fio.
    #[serde(flatten)]
    pub limit: Option<Limit>,
    /// Beside a flood.
    #[serde(flatten)]
    pub beside: Option<Beside>,
    /// Why there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<&'static str>,
    /// What reads and writes.
    pub disk: String,
    /// `inline` on the thread that submits, in a `thread` of their own, or `none`.
    pub checksums: &'static str,
    /// What the memory is made of, on both sides.
    pub memory: String,
    /// Bytes of the disk that were used.
    pub working_set: u64,
    /// The machine and its load.
    #[serde(flatten)]
    pub noise: Noise,
}

/// What fio did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limit {
    /// 10⁹ payload bytes a second.
    pub limit_gb_per_s: f64,
    /// Our rate as part of that, turn by turn; the median.
    pub ratio: f64,
    /// Seconds of processor time for 10⁹ bytes, as fio counts them.
    pub limit_cpu_s_per_gb: f64,
    /// Half of its operations took no longer, µs.
    pub limit_p50_us: f64,
    /// 99 of 100 took no longer, µs.
    pub limit_p99_us: f64,
}

impl Line {
    /// Of one stream.
    pub(super) fn new(
        stream: &Stream,
        turns: &Turns,
        disk: &str,
        memory: &Backing,
        checksums: Checksums,
        plan: &Plan,
    ) -> Self {
        Self {
            bench: "nvme",
            op: if stream.way == Way::Read { "read" } else { "write" },
            size: stream.size,
            depth: stream.depth,
            gb_per_s: turns.median(|turn| turn.gb_per_s),
            cpu_s_per_gb: turns.median(|turn| turn.cpu_s_per_gb),
            latency: Latency::Completion,
            p50_us: turns.median(|turn| turn.p50_us),
            p99_us: turns.median(|turn| turn.p99_us),
            n: turns.n(),
            limit: None,
            beside: None,
            skipped: None,
            disk: disk.to_owned(),
            memory: memory.to_string(),
            checksums: match checksums {
                Checksums::Thread => "thread",
                Checksums::Inline => "inline",
                Checksums::None => "none",
            },
            working_set: plan.bytes,
            noise: Noise::now(),
        }
    }

    /// Measured in turns with fio, if that is there.
    pub(super) fn beside(mut self, ours: &Turns, theirs: Option<&Turns>) -> Self {
        self.limit = theirs.map(|theirs| Limit {
            limit_gb_per_s: theirs.median(|turn| turn.gb_per_s),
            ratio: ours.ratio(theirs, |turn| turn.gb_per_s),
            limit_cpu_s_per_gb: theirs.median(|turn| turn.cpu_s_per_gb),
            limit_p50_us: theirs.median(|turn| turn.p50_us),
            limit_p99_us: theirs.median(|turn| turn.p99_us),
        });
        self.skipped = theirs.is_none().then_some(MISSING);
        self
    }

    /// Measured in turns with itself alone.
    pub(super) fn loaded(
        mut self,
        load: Load,
        reads: &Turns,
        writes: &Turns,
        idle: &Turns,
    ) -> Self {
        let p99: fn(&Sample) -> f64 = |turn| turn.p99_us;
        let load_gb_per_s =
            if load == Load::None { 0.0 } else { writes.median(|turn| turn.gb_per_s) };
        self.op = "lanes";
        self.beside = Some(Beside {
            load,
            load_gb_per_s,
            p50_to_idle: reads.ratio(idle, |turn| turn.p50_us),
            p99_to_idle: reads.ratio(idle, p99),
        });
        self
    }
}
