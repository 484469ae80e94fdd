//! Whether a codec pays, by what was measured.

use std::time::Duration;

use super::Codec;

/// How much of an average a new figure is: 1/8.
const WEIGHT: f64 = 0.125;
/// One block in so many is coded to see how it would do, while coding does not pay.
const SAMPLE_EVERY: u32 = 64;

/// Which codec a tier uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// None.
    #[default]
    Off,
    /// This one while it pays, by what is measured as blocks go by.
    WhenItPays(Codec),
    /// This one, whatever it costs.
    Always(Codec),
}

/// What is known of a codec on the blocks that went by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Original bytes by stored bytes.
    pub ratio: f64,
    /// Original bytes a second that one thread codes.
    pub bytes_per_s: f64,
}

/// Whether it is faster to code bytes and move fewer of them, one after the other, over a tier of
/// `tier_bytes_per_s`: when it is slower than `bytes_per_s × (1 − 1 ÷ ratio)`.
#[must_use]
pub fn pays(measured: Measured, tier_bytes_per_s: f64) -> bool {
    measured.ratio > 1.0 && tier_bytes_per_s < measured.bytes_per_s * (1.0 - 1.0 / measured.ratio)
}

/// Measures, and decides block by block.
#[derive(Debug)]
pub struct Advisor {
    choice: Choice,
    measured: Option<Measured>,
    tier_bytes_per_s: Option<f64>,
    since_sample: u32,
}

impl Advisor {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(choice: Choice) -> Self {
        Self { choice, measured: None, tier_bytes_per_s: None, since_sample: 0 }
    }

    /// The codec of the next block. One in a while is coded in any case, to measure.
    pub fn choose(&mut self) -> Codec {
        match self.choice {
            Choice::Off => Codec::None,
            Choice::Always(codec) => codec,
            Choice::WhenItPays(codec) => {
                let pays = match (self.measured, self.tier_bytes_per_s) {
                    (Some(measured), Some(tier)) => pays(measured, tier),
                    _ => false,
                };
                self.since_sample += 1;
                if pays || self.since_sample >= SAMPLE_EVERY || self.measured.is_none() {
                    self.since_sample = 0;
                    codec
                } else {
                    Codec::None
                }
            }
        }
    }

    /// A block of so many bytes was coded in this time to so many.
    pub fn coded(&mut self, bytes: u64, stored: u64, took: Duration) {
        let now = Measured {
            ratio: bytes as f64 / stored.max(1) as f64,
            bytes_per_s: bytes as f64 / took.as_secs_f64().max(1e-9),
        };
        self.measured = Some(match self.measured {
            None => now,
            Some(last) => Measured {
                ratio: mean(last.ratio, now.ratio),
                bytes_per_s: mean(last.bytes_per_s, now.bytes_per_s),
            },
        });
    }

    /// So many bytes went over the tier in this time.
    pub fn moved(&mut self, bytes: u64, took: Duration) {
        let now = bytes as f64 / took.as_secs_f64().max(1e-9);
        self.tier_bytes_per_s = Some(self.tier_bytes_per_s.map_or(now, |last| mean(last, now)));
    }
}

fn mean(last: f64, now: f64) -> f64 {
    last + (now - last) * WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_is_where_both_ways_take_the_same_time() {
        let zstd = Measured { ratio: 1.44, bytes_per_s: 1e9 };
        // 10⁹ × (1 − 1 ÷ 1.44)
        let even = 305_555_555.0;
        assert!(pays(zstd, even - 1e6) && !pays(zstd, even + 1e6));
        let took = |link: f64| 1e9 / 1e9 + 1e9 / 1.44 / link;
        assert!(took(even - 1e6) < 1e9 / (even - 1e6));
        assert!(took(even + 1e6) > 1e9 / (even + 1e6));
        assert!(!pays(Measured { ratio: 1.0, bytes_per_s: 1e12 }, 1.0), "nothing is gained");
    }

    #[test]
    fn a_fast_tier_is_left_alone_but_for_samples() {
        let mut advisor = Advisor::new(Choice::WhenItPays(Codec::Zstd));
        assert_eq!(advisor.choose(), Codec::Zstd, "the first block shows what it does");
        advisor.coded(1 << 20, 700_000, Duration::from_millis(1));
        advisor.moved(1 << 30, Duration::from_secs(1));
        let coded = (0..640).filter(|_| advisor.choose() == Codec::Zstd).count();
        assert_eq!(coded, 10, "one in {SAMPLE_EVERY}");
        for _ in 0..100 {
            advisor.moved(50 << 20, Duration::from_secs(1));
        }
        assert!((0..640).all(|_| advisor.choose() == Codec::Zstd), "a slow one is not");
    }

    #[test]
    fn what_is_chosen_for_good_is_not_weighed() {
        assert_eq!(Advisor::new(Choice::Off).choose(), Codec::None);
        let mut always = Advisor::new(Choice::Always(Codec::Lz4));
        always.moved(1 << 40, Duration::from_secs(1));
        assert_eq!(always.choose(), Codec::Lz4);
    }
}
