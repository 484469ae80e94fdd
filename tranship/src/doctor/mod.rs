//! What this machine can do, what is missing, and what to do about it.

mod disks;
mod fabrics;
pub mod host;
mod limits;
mod probe;
mod rdma;
#[expect(unsafe_code, reason = "probes that the safe wrappers do not have")]
mod sys;

use std::fmt;

use serde::Serialize;
use tranship_cache::tier::Tier;

use crate::config::Config;

/// Everything `tranship doctor` found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The machine.
    #[serde(flatten)]
    pub host: host::Host,
    /// The fabrics, usable or not.
    pub fabrics: Vec<Finding>,
    /// Limits of the system that matter for the configuration.
    pub limits: Vec<Finding>,
    /// The tiers below memory of the daemon that runs here, if one does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// How fast it is, where that was measured.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
}

/// What a fabric did between two processes, a moment ago.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Speed {
    /// 10⁹ payload bytes a second, in writes of 1 MiB.
    pub gb_per_s: f64,
    /// From the submission of a small write with an immediate until it is seen over there, median, µs.
    pub one_way_us: f64,
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} GB/s, {:.1} µs", self.gb_per_s, self.one_way_us)
    }
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Works.
    Ready,
    /// Not there; nothing breaks, something is missing.
    Absent,
    /// There, but it will fail or be slow as configured.
    Warning,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Absent => "absent",
            Self::Warning => "warning",
        })
    }
}

impl Finding {
    fn ready(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ready, detail: detail.into(), remedy: None, speed: None }
    }

    fn absent(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Absent, detail: detail.into(), remedy: None, speed: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Warning, detail: detail.into(), remedy: None, speed: None }
    }

    fn measured(mut self, speed: Speed) -> Self {
        self.speed = Some(speed);
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// What is to be said when the arena could not be locked into memory.
#[must_use]
pub fn memlock_warning(config: &Config) -> Option<String> {
    let finding = limits::memlock(config.dram.capacity.bytes());
    let remedy = finding.remedy.filter(|_| finding.state == State::Warning)?;
    Some(format!("{} {}; {remedy}", finding.name, finding.detail))
}

impl Report {
    /// Looks at everything; `config` says what will be needed, `shm` how fast that fabric is, or why
    /// it could not be measured.
    #[must_use]
    pub fn examine(config: &Config, shm: Result<Speed, String>) -> Self {
        Self {
            host: host::Host::examine(),
            fabrics: fabrics::examine(config, shm),
            limits: limits::examine(config),
            tiers: Vec::new(),
        }
    }

    /// Adds what the daemon that runs here says of a tier below memory.
    pub fn tier(&mut self, tier: Tier, ready: bool, detail: impl Into<String>) {
        let finding = if ready { Finding::ready } else { Finding::warning };
        self.tiers.push(finding(tier.name(), detail.into()));
    }

    /// Whether at least one fabric works.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        self.fabrics.iter().any(|fabric| fabric.state == State::Ready)
    }
}
