//! How often names were used lately, in a fixed number of bits a block.

use super::spread;

/// Counters for each block that is resident.
const COUNTERS_PER_BLOCK: usize = 8;
const COUNTERS_MIN: usize = 1 << 10;
const ROWS: u32 = 4;
const COUNT_MAX: u8 = 15;
/// All counts are halved after so many uses for each block.
const SAMPLE_PER_BLOCK: u64 = 10;

/// A count-min sketch whose counts are halved now and then (Einziger, Friedman and Manes, "TinyLFU: a
/// highly efficient cache admission policy", ACM Transactions on Storage 2017).
#[derive(Debug, Default)]
pub(super) struct Sketch {
    counts: Vec<u8>,
    added: u64,
    sample: u64,
}

impl Sketch {
    /// Makes room for the names of so many blocks; growing forgets nothing that matters for long.
    pub(super) fn fit(&mut self, blocks: usize) {
        let want = (blocks * COUNTERS_PER_BLOCK).next_power_of_two().max(COUNTERS_MIN);
        if want > self.counts.len() {
            // The old counts repeat: an index that is longer by a bit finds the same count.
            let old = self.counts.len();
            self.counts.resize(want, 0);
            if old > 0 {
                for at in old..want {
                    self.counts[at] = self.counts[at & (old - 1)];
                }
            }
        }
        self.sample = blocks.max(COUNTERS_MIN / COUNTERS_PER_BLOCK) as u64 * SAMPLE_PER_BLOCK;
    }

    fn places(&self, name: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.counts.len() - 1;
        (0..ROWS).map(move |row| {
            let other = u64::from(row).wrapping_mul(0xff51_afd7_ed55_8ccd);
            spread(name ^ other) as usize & mask
        })
    }

    pub(super) fn add(&mut self, name: u64) {
        for at in self.places(name) {
            self.counts[at] = COUNT_MAX.min(self.counts[at] + 1);
        }
        self.added += 1;
        if self.added >= self.sample {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.added /= 2;
        }
    }

    pub(super) fn count(&self, name: u64) -> u8 {
        self.places(name).map(|at| self.counts[at]).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_while_it_grows_and_fade() {
        let mut sketch = Sketch::default();
        sketch.fit(1);
        (0..9).for_each(|_| sketch.add(7));
        assert!(sketch.count(7) >= 9 && sketch.count(8) < 9);
        sketch.fit(1_000);
        assert!(sketch.count(7) >= 9);
        (0..20_000_u64).for_each(|name| sketch.add(name << 20));
        assert!(sketch.count(7) < 9, "{}", sketch.count(7));
    }
}
