//! The paths to a peer, and how fast each is.

use std::time::Duration;

use super::device::ChannelId;
use crate::time::Time;

/// What a path is taken to carry before anything was measured, bytes a second.
const RATE_FIRST: f64 = 1e9;
/// The share of a new measurement in the average.
const RATE_GAIN: f64 = 0.125;
/// Shorter posts say more about latency than about bandwidth.
pub(super) const RATE_BYTES_MIN: u64 = 32 << 10;
/// The slowest rate that is believed: one bad moment is not to shut a path out for good.
const RATE_MIN: f64 = 1e6;
/// How long until a slow rate that was not measured again is believed to be twice as fast.
const RATE_HALF_LIFE: Duration = Duration::from_millis(50);
/// How long a path is left alone after failures, doubling from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A rail of this side and one of the peer's.
#[derive(Debug)]
pub(super) struct Path {
    /// The rail of this side.
    pub(super) rail: u8,
    /// Which of the path's channels is the present or last one.
    pub(super) generation: u32,
    pub(super) state: State,
    /// Immediates that came through the present or last channel, by lane.
    pub(super) arrived: [u64; 2],
    /// Immediates that were posted on it, by lane.
    pub(super) announced: [u64; 2],
    /// Bytes under way, by lane.
    pub(super) under_way: [u64; 2],
    pub(super) rate: Rate,
    /// Messages that it was given.
    pub(super) messages: u64,
    /// Whether it is to be measured by an empty write.
    pub(super) probe: Probe,
    /// How long the last empty write took.
    pub(super) round_trip: Option<Duration>,
    /// Why it is down, or was the last time.
    pub(super) why: String,
    failures: u32,
}

/// An empty write that measures a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    None,
    /// It waits for the path, or for room.
    Due,
    Flying,
}

/// What a path is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing; whoever dialled tries again then.
    Down { retry: Time },
    /// Both sides are making their channels.
    Joining { channel: Option<ChannelId>, until: Time },
    /// Both sides have connected; whether something gets through is being tried, in so many lanes.
    Proving { channel: ChannelId, left: u8, until: Time },
    /// In use.
    Up(ChannelId),
    /// This side has taken its channel down and waits for the peer's word that it has, too.
    Shutting,
}

impl Path {
    pub(super) fn new(rail: u8) -> Self {
        Self {
            rail,
            generation: 0,
            state: State::Down { retry: Time::ZERO },
            arrived: [0; 2],
            announced: [0; 2],
            under_way: [0; 2],
            rate: Rate::default(),
            messages: 0,
            probe: Probe::None,
            round_trip: None,
            why: "not tried yet".to_owned(),
            failures: 0,
        }
    }

    /// Its channel, whether or not it is in use.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        match self.state {
            State::Up(channel) | State::Proving { channel, .. } => Some(channel),
            State::Joining { channel, .. } => channel,
            State::Down { .. } | State::Shutting => None,
        }
    }

    /// Whether it is not known yet what becomes of it.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self.state, State::Joining { .. } | State::Proving { .. })
    }

    /// Its channel, if it is in use.
    pub(super) fn up(&self) -> Option<ChannelId> {
        match self.state {
            State::Up(channel) => Some(channel),
            _ => None,
        }
    }

    /// A new channel begins.
    pub(super) fn begin(&mut self, generation: u32, channel: ChannelId, until: Time) {
        self.generation = generation;
        self.state = State::Joining { channel: Some(channel), until };
        self.arrived = [0; 2];
        self.announced = [0; 2];
        self.rate = Rate::default();
        self.round_trip = None;
        if self.probe == Probe::Flying {
            self.probe = Probe::Due;
        }
    }

    /// It is to be left alone for a while.
    pub(super) fn failed(&mut self, now: Time) {
        let span = RETRY.0.saturating_mul(1 << self.failures.min(10)).min(RETRY.1);
        self.failures += 1;
        self.state = State::Down { retry: now + span };
    }

    /// Something went through.
    pub(super) fn done(&mut self, bytes: u64, posted: Time, now: Time) {
        self.failures = 0;
        if bytes > 0 {
            self.rate.measure(bytes, posted, now);
        }
    }

    /// How long until so many more bytes would be through, seconds.
    pub(super) fn estimate(&self, bytes: u64, now: Time) -> f64 {
        let before: u64 = self.under_way.iter().sum();
        (before + bytes) as f64 / self.rate.now(now)
    }
}

/// How fast a path is: a moving average of what goes through while it is busy.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: f64,
    /// Whether anything was measured.
    learnt: bool,
    last: Time,
}

impl Default for Rate {
    fn default() -> Self {
        Self { bytes_per_second: RATE_FIRST, learnt: false, last: Time::ZERO }
    }
}

impl Rate {
    /// The rate, if enough went through to learn it.
    pub(super) fn learnt(&self) -> Option<f64> {
        self.learnt.then_some(self.bytes_per_second)
    }

    /// The rate as it is believed now: what was slow long ago is tried again, or nobody would ever
    /// find out that it is fast again.
    fn now(&self, now: Time) -> f64 {
        let age = now.since(self.last).as_secs_f64() / RATE_HALF_LIFE.as_secs_f64();
        if age < 1.0 || self.bytes_per_second >= RATE_FIRST {
            return self.bytes_per_second;
        }
        (self.bytes_per_second * age.min(30.0).exp2()).min(RATE_FIRST)
    }

    /// So many bytes, posted then, are through now.
    fn measure(&mut self, bytes: u64, posted: Time, now: Time) {
        // Those before it had the path until they were through.
        let began = std::mem::replace(&mut self.last, now).max(posted);
        if bytes < RATE_BYTES_MIN || now <= began {
            return;
        }
        let took = now.since(began).as_secs_f64();
        // Completions come in bursts: one that follows another at once would be infinitely fast.
        let rate = (bytes as f64 / took).clamp(RATE_MIN, self.bytes_per_second * 4.0);
        self.bytes_per_second += RATE_GAIN * (rate - self.bytes_per_second);
        self.learnt = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_path_gets_less() {
        let mut paths = [Path::new(0), Path::new(1)];
        let speeds = [4e9, 1e9];
        for _ in 0..200 {
            for (path, speed) in paths.iter_mut().zip(speeds) {
                let posted = path.rate.last;
                let took = Duration::from_secs_f64(1e6 / speed);
                path.done(1_000_000, posted, posted + took);
            }
        }
        let mut given = [0u64; 2];
        let now = paths[0].rate.last;
        for _ in 0..1000 {
            let best = (0..2).min_by(|a, b| {
                paths[*a].estimate(1 << 20, now).total_cmp(&paths[*b].estimate(1 << 20, now))
            });
            let best = best.unwrap();
            paths[best].under_way[1] += 1 << 20;
            given[best] += 1;
        }
        assert!((780..=820).contains(&given[0]), "4 to 1, and not {given:?}");
    }

    #[test]
    fn a_path_that_was_slow_is_tried_again() {
        let mut path = Path::new(0);
        let mut now = Time::ZERO;
        for _ in 0..100 {
            path.done(1 << 20, now, now + Duration::from_secs(1));
            now = now + Duration::from_secs(1);
        }
        assert!(path.rate.now(now) < RATE_FIRST / 100.0);
        assert!(path.rate.now(now + Duration::from_secs(2)) == RATE_FIRST);
    }

    #[test]
    fn one_bad_moment_does_not_shut_a_path_out() {
        let mut path = Path::new(0);
        path.done(1 << 20, Time::ZERO, Time::ZERO + Duration::from_secs(3600));
        assert!(path.rate.bytes_per_second > RATE_FIRST / 2.0);
    }

    #[test]
    fn failures_space_retries() {
        let mut path = Path::new(0);
        let mut spans = Vec::new();
        for _ in 0..8 {
            path.failed(Time::ZERO);
            let State::Down { retry } = path.state else { panic!("down") };
            spans.push(retry.since(Time::ZERO));
        }
        assert_eq!((spans[0], spans[1]), (RETRY.0, RETRY.0 * 2));
        assert_eq!(spans[7], RETRY.1);
    }
}
