//! Randomness that is the same on every machine.

/// The finaliser of SplitMix64: every input bit changes about half of the output bits.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// SplitMix64, and the distributions needed here without logarithms, whose last bit differs
/// between C libraries.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..=high`.
    pub(crate) fn range(&mut self, low: u32, high: u32) -> u32 {
        low + (self.unit() * f64::from(high - low + 1)) as u32
    }

    /// Exponential, by comparisons only (von Neumann, "Various techniques used in connection with
    /// random digits", 1951).
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        let mut whole = 0.0;
        loop {
            let first = self.unit();
            let (mut last, mut run) = (first, 1);
            loop {
                let next = self.unit();
                if next >= last {
                    break;
                }
                last = next;
                run += 1;
            }
            if run % 2 == 1 {
                return (whole + first) * mean;
            }
            whole += 1.0;
        }
    }

    /// `0..count`, the k-th with weight 1/(k+1).
    pub(crate) fn zipf(&mut self, count: usize) -> usize {
        let weight = |rank: usize| 1.0 / (rank + 1) as f64;
        let total: f64 = (0..count).map(weight).sum();
        let mut left = self.unit() * total;
        for rank in 0..count {
            left -= weight(rank);
            if left < 0.0 {
                return rank;
            }
        }
        count - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_their_means() {
        let mut random = Random::new(1);
        let mean = (0..20_000).map(|_| random.exponential(10.0)).sum::<f64>() / 20_000.0;
        assert!((9.7..10.3).contains(&mean), "{mean}");
        let mut counts = [0u32; 4];
        for _ in 0..10_000 {
            counts[random.zipf(4)] += 1;
        }
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
    }
}
