//! An operation and its limit, measured in turns.
//!
//! Other work on the machine comes and goes. Measured one after the other, it may hit one of the
//! two alone; measured in short turns it hits both, and the median over the rounds of their ratio
//! is steady where the rates are not.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Error;

/// Rounds of one measurement.
const ROUNDS: u32 = 20;
/// Warming up may take so long, even if measuring takes less.
const WARM_UP_MIN: Duration = Duration::from_millis(200);
/// Longer ones count as this: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Digits that latencies keep.
const DIGITS: u8 = 3;

/// What one side did in one turn.
#[derive(Debug)]
pub struct Tally {
    bytes: u64,
    units: u64,
    took: Duration,
    latencies: Histogram<u64>,
    posts: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        let [latencies, posts] = [(), ()]
            .map(|()| Histogram::new_with_max(LATENCY_MAX_NS, DIGITS).expect("possible bounds"));
        Self { bytes: 0, units: 0, took: Duration::ZERO, latencies, posts }
    }

    /// For work that is not measured.
    #[must_use]
    pub(super) fn unmeasured() -> Self {
        Self::new()
    }

    /// Counts `units` of work, of `bytes` payload bytes together, done between `began` and now.
    /// Only this time counts: what a step does outside of it is not measured.
    pub fn worked(&mut self, began: Instant, units: u64, bytes: u64) -> Duration {
        let took = began.elapsed();
        self.took(took, units, bytes);
        took
    }

    /// The same, of work that took so long.
    pub fn took(&mut self, took: Duration, units: u64, bytes: u64) {
        self.took += took;
        self.units += units;
        self.bytes += bytes;
    }

    /// Notes how long one operation took.
    pub fn latency(&mut self, took: Duration) {
        self.latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes how long it took to post one operation.
    pub fn posted(&mut self, took: Duration) {
        self.posts.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Bytes a nanosecond, which is GB/s.
    fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.took.as_nanos().max(1) as f64
    }
}

/// Does some work and counts it.
pub type Step<'a> = dyn FnMut(&mut Tally) -> Result<(), Error> + 'a;

/// What was measured of one side, round by round.
#[derive(Debug)]
pub struct Measured {
    gb_per_s: Vec<f64>,
    units_per_s: Vec<f64>,
    latencies: Histogram<u64>,
    posts: Histogram<u64>,
}

impl Measured {
    fn new() -> Self {
        let Tally { latencies, posts, .. } = Tally::new();
        Self { gb_per_s: Vec::new(), units_per_s: Vec::new(), latencies, posts }
    }

    fn add(&mut self, tally: &Tally) {
        self.gb_per_s.push(tally.gb_per_s());
        self.units_per_s.push(tally.units as f64 / tally.took.as_secs_f64());
        self.latencies.add(&tally.latencies).expect("histograms of one kind");
        self.posts.add(&tally.posts).expect("histograms of one kind");
    }

    /// 10⁹ payload bytes a second: the median of the rounds.
    #[must_use]
    pub fn gb_per_s(&self) -> f64 {
        median(self.gb_per_s.clone())
    }

    /// The rate as part of the rate of `limit`, measured in turns with it: the median of the rounds.
    #[must_use]
    pub fn ratio_to(&self, limit: &Self) -> f64 {
        let rounds = self.gb_per_s.iter().zip(&limit.gb_per_s);
        median(rounds.map(|(rate, limit)| rate / limit).collect())
    }

    /// Units of work a second: the median of the rounds.
    #[must_use]
    pub fn units_per_s(&self) -> f64 {
        median(self.units_per_s.clone())
    }

    /// The rate of work as part of that of `other`, measured in turns with it: the median of the rounds.
    #[must_use]
    pub fn rate_to(&self, other: &Self) -> f64 {
        let rounds = self.units_per_s.iter().zip(&other.units_per_s);
        median(rounds.map(|(rate, other)| rate / other).collect())
    }

    /// The time that so many of a hundred operations do not exceed, µs.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1e3
    }

    /// The time that posting so many of a hundred operations did not exceed, µs.
    #[must_use]
    pub fn post_us(&self, percent: f64) -> f64 {
        self.posts.value_at_percentile(percent) as f64 / 1e3
    }

    /// Operations measured.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.latencies.len()
    }
}

/// Measures all sides in turns, for `time` together, after `warm_up` steps of each, or as many as
/// fit into as long a time.
///
/// # Errors
/// Those of the steps.
pub fn in_turns<const SIDES: usize>(
    time: Duration,
    warm_up: u64,
    mut sides: [&mut Step<'_>; SIDES],
) -> Result<[Measured; SIDES], Error> {
    for side in &mut sides {
        let (mut unmeasured, began) = (Tally::new(), Instant::now());
        for _ in 0..warm_up {
            side(&mut unmeasured)?;
            if began.elapsed() >= time.max(WARM_UP_MIN) {
                break;
            }
        }
    }
    let turn = time / (SIDES as u32 * ROUNDS);
    let mut measured = std::array::from_fn(|_| Measured::new());
    for _ in 0..ROUNDS {
        for (side, measured) in sides.iter_mut().zip(&mut measured) {
            measured.add(&take_turn(turn, side)?);
        }
    }
    Ok(measured)
}

/// At least one step, and more until `turn` has been worked.
fn take_turn(turn: Duration, step: &mut Step<'_>) -> Result<Tally, Error> {
    let mut tally = Tally::new();
    loop {
        step(&mut tally)?;
        if tally.took >= turn {
            return Ok(tally);
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { values[middle - 1].midpoint(values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn twice_the_bytes_in_the_same_time_are_half_of_the_limit() {
        let began = Instant::now();
        let step = |bytes: u64| {
            move |tally: &mut Tally| {
                // One nanosecond a step, whatever the clock says.
                tally.took += Duration::from_nanos(1);
                tally.bytes += bytes;
                tally.latency(began.elapsed());
                Ok(())
            }
        };
        let time = Duration::from_nanos(400);
        let [limit, half] = in_turns(time, 3, [&mut step(2), &mut step(1)]).unwrap();
        assert!((half.ratio_to(&limit) - 0.5).abs() < 1e-9);
        assert!((half.gb_per_s() - 1.0).abs() < 1e-9);
        assert_eq!(half.n(), u64::from(ROUNDS) * 10);
    }
}
