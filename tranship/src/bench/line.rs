//! One line of the result, and the circumstances it was measured in.

use std::fs;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::rounds::Measured;

/// One line of the result.
#[derive(Debug, Serialize)]
pub struct Line {
    /// `transport`, `cache`, `object` or `ffi`.
    pub bench: &'static str,
    /// The fabric; of the object tier what serves the bucket.
    pub fabric: &'static str,
    /// The operation.
    pub op: &'static str,
    /// Payload bytes of one transfer or block; 0 where no payload moves.
    pub size: u64,
    /// Transfers in flight, blocks in one call, or keys in one lookup.
    pub batch: u32,
    /// Against the limit; none where no payload moves.
    #[serde(flatten)]
    pub throughput: Option<Throughput>,
    /// Keys looked up a second, by one client and one thread of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_per_s: Option<f64>,
    /// Keys in the daemon's catalog that lookups walk through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_keys: Option<u64>,
    /// What the limit takes for the same, where that is known: half of them no longer, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_p50_us: Option<f64>,
    /// 99 of 100 no longer, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_p99_us: Option<f64>,
    /// Of small writes without a network.
    #[serde(flatten)]
    pub posts: Option<Posts>,
    /// Of paged transfers.
    #[serde(flatten)]
    pub paged: Option<Paged>,
    /// Of an operation beside others.
    #[serde(flatten)]
    pub beside: Option<Beside>,
    /// Of calls from another language.
    #[serde(flatten)]
    pub called: Option<Called>,
    /// What `p50_us` and `p99_us` are of.
    pub latency: Latency,
    /// Half of the operations took no longer, µs.
    pub p50_us: f64,
    /// 99 of 100 operations took no longer, µs.
    pub p99_us: f64,
    /// Operations measured.
    pub n: u64,
    /// How both processes wait.
    pub polling: &'static str,
    /// Threads beside the calling one that share a large copy.
    pub copy_threads: usize,
    /// Bytes on each side that were used in turn.
    pub working_set: u64,
    /// The machine and its load.
    #[serde(flatten)]
    pub noise: Noise,
}

impl Line {
    /// A line without what only some operations have: no payload over `shm`, one at a time.
    #[must_use]
    pub fn new(
        bench: &'static str,
        op: &'static str,
        latency: Latency,
        measured: &Measured,
        plan: &Plan,
    ) -> Self {
        Self {
            bench,
            fabric: "shm",
            op,
            size: 0,
            batch: 1,
            throughput: None,
            keys_per_s: None,
            resident_keys: None,
            limit_p50_us: None,
            limit_p99_us: None,
            posts: None,
            paged: None,
            beside: None,
            called: None,
            latency,
            p50_us: measured.percentile_us(50.0),
            p99_us: measured.percentile_us(99.0),
            n: measured.n(),
            polling: plan.polling_name(),
            copy_threads: 1,
            working_set: plan.working_set,
            noise: Noise::now(),
        }
    }
}

/// Writes a second by one worker, and what one costs to post.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Posts {
    /// Writes a second.
    pub writes_per_s: f64,
    /// The time of one, ns: describing it, posting it, and seeing that it has ended.
    pub post_ns: f64,
}

/// Pages a second, and what it costs to post them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Paged {
    /// Pages of one transfer.
    pub pages: u32,
    /// Pages moved a second.
    pub pages_per_s: f64,
    /// Half of the transfers took no longer to post, µs. Plans are made before.
    pub post_p50_us: f64,
    /// 99 of 100 took no longer, µs.
    pub post_p99_us: f64,
}

/// An operation beside others that keep both sides busy.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Beside {
    /// Beside what.
    pub load: Load,
    /// What the others moved meanwhile from this side, 10⁹ bytes a second; the peer's do the same.
    pub load_gb_per_s: f64,
    /// `p50_us` as so many times that of `load` `none`, measured in turns.
    pub p50_to_idle: f64,
    /// `p99_us` as so many times that of `load` `none`.
    pub p99_to_idle: f64,
}

/// A call from another language, and the same in Rust.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Called {
    /// From which language.
    pub caller: &'static str,
    /// Half of the calls in Rust took no longer, µs.
    pub rust_p50_us: f64,
    /// The time of a call as so many times that in Rust, round by round; the median.
    pub time_to_rust: f64,
}

/// Beside what an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Alone.
    None,
    /// Large writes both ways in the bulk lane, while it has the latency lane.
    OtherLane,
    /// The same with everything in the bulk lane.
    SameLane,
}

impl Load {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::OtherLane => "bulk in the other lane",
            Self::SameLane => "bulk in the same lane",
        }
    }
}

/// What a latency is of.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// From the submission of a transfer until its end is seen.
    Completion,
    /// Half of a round trip.
    OneWay,
    /// A call from its begin until it returns, all blocks or keys of it.
    Call,
}

impl Latency {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::OneWay => "one way",
            Self::Call => "call",
        }
    }
}

/// Bytes a second, and how many the limit would have allowed, where there is one.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Throughput {
    /// 10⁹ payload bytes a second.
    pub gb_per_s: f64,
    /// The same of the limit in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_gb_per_s: Option<f64>,
    /// The first as part of the second, round by round; the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Throughput {
    /// Of an operation and its limit, measured in turns.
    #[must_use]
    pub fn of(operation: &Measured, limit: &Measured) -> Self {
        Self {
            limit_gb_per_s: Some(limit.gb_per_s()),
            ratio: Some(operation.ratio_to(limit)),
            ..Self::alone(operation)
        }
    }

    /// Of an operation whose limit is not known.
    #[must_use]
    pub fn alone(operation: &Measured) -> Self {
        Self { gb_per_s: operation.gb_per_s(), limit_gb_per_s: None, ratio: None }
    }
}

/// The machine, and what else it did.
#[derive(Debug, Clone, Serialize)]
pub struct Noise {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Load average of the last minute: the benchmark itself brings 1 to 2.
    pub load_1m: f64,
}

impl Noise {
    /// As it is now: `/proc/cpuinfo`, `/proc/loadavg` (proc(5)).
    #[must_use]
    pub fn now() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = loadavg.split(' ').next().and_then(|load| load.parse().ok());
        Self {
            cpu: model
                .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_1m: load.unwrap_or(0.0),
        }
    }
}
