//! What administration and metrics look at. Nothing is counted here: every figure is read from its
//! owner when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tranship_cache::server::{ServerStats, SessionInfo};
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::{Figures, Health};
use tranship_cache::{Millis, Store};
use tranship_transport::{Kind, Rail, Stats, Time};

/// Reads a value from its owner.
pub(crate) type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// A daemon, as seen by who looks after it. Clones look at the same one.
#[derive(Clone)]
pub(crate) struct Observe {
    /// The blocks.
    pub(crate) store: Store,
    /// Figures of the engine that moves them.
    pub(crate) engine: Source<Stats>,
    /// The rails of its fabrics.
    pub(crate) rails: Source<Vec<Rail>>,
    /// Figures of the protocol server.
    pub(crate) server: Source<ServerStats>,
    /// Clients connected now.
    pub(crate) sessions: Source<Vec<SessionInfo>>,
    /// The time that the server passes to the store.
    pub(crate) now: Source<Millis>,
    /// The engine's clock, by which sessions are dated.
    pub(crate) clock: Source<Time>,
    /// The fabrics that are open, and where clients connect over them.
    pub(crate) listen: Vec<(Kind, String)>,
    /// Since when the daemon runs.
    pub(crate) since: Instant,
    /// Whether the daemon has finished starting.
    pub(crate) started: Started,
}

impl Observe {
    /// The tiers below memory, the fastest first.
    pub(crate) fn tiers(&self) -> Vec<Below> {
        let levels = self.store.stack().levels().iter();
        levels
            .map(|level| {
                let (state, reason) = match level.cold.health() {
                    Health::Ready => (TierState::Ready, String::new()),
                    Health::Degraded(why) => (TierState::Degraded, why),
                    Health::ReadOnly(why) => (TierState::ReadOnly, why),
                    Health::Off(why) => (TierState::Off, why),
                };
                Below { tier: level.cold.tier(), state, reason, figures: level.cold.figures() }
            })
            .collect()
    }

    /// Whether clients should come.
    pub(crate) fn state(&self) -> State {
        match () {
            () if !self.started.get() => State::Starting,
            () if self.store.is_draining() => State::Draining,
            () => State::Serving,
        }
    }
}

/// Turns once, when the daemon is ready for clients.
#[derive(Clone, Default)]
pub(crate) struct Started(Arc<AtomicBool>);

impl Started {
    /// From now on the daemon is ready.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether clients should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// Takes no new blocks.
    Draining,
}

/// A tier below memory, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Below {
    pub(crate) tier: Tier,
    pub(crate) state: TierState,
    /// Why it is not ready; empty when it is.
    pub(crate) reason: String,
    pub(crate) figures: Figures,
}

/// What a tier below memory can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TierState {
    /// All.
    Ready,
    /// All, but slower or less than asked for.
    Degraded,
    /// Loads alone.
    ReadOnly,
    /// Nothing.
    Off,
}

impl TierState {
    pub(crate) const ALL: [Self; 4] = [Self::Ready, Self::Degraded, Self::ReadOnly, Self::Off];

    /// The name in metrics and for programs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::ReadOnly => "read_only",
            Self::Off => "off",
        }
    }
}
