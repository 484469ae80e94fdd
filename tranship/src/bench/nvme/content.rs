//! What is on the disk: a checksum for each granule, so that every byte that is read can be checked.

use std::ops::Range;
use std::sync::Arc;

use tranship_cache::tier::Span;
use tranship_transport::Memory;

use crate::bench::Error;

/// Noise, of which each granule takes a part and puts its own number in front.
const NOISE_BYTES: usize = 1 << 20;

/// The checksums of a disk's granules.
pub struct Content {
    granule: usize,
    sums: Vec<u64>,
    /// Granules ever made: each begins with its number, and none is like another.
    made: u64,
    noise: Vec<u8>,
}

impl Content {
    /// Of a disk of `bytes` bytes that nothing is known of, in granules of `granule` bytes.
    #[must_use]
    pub fn new(bytes: u64, granule: u64) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let noise = std::iter::repeat_with(next).take(NOISE_BYTES).collect();
        let sums = vec![0; (bytes / granule) as usize];
        Self { granule: granule as usize, sums, made: 0, noise }
    }

    /// Fills memory with noise, once: [`Content::make`] then changes a few bytes of each granule.
    ///
    /// # Errors
    /// When the memory is not writable.
    pub fn seed(&self, memory: &Arc<Memory>) -> Result<(), Error> {
        for at in (0..memory.len()).step_by(NOISE_BYTES) {
            let len = NOISE_BYTES.min(memory.len() - at);
            memory.copy_in(at, &self.noise[..len])?;
        }
        Ok(())
    }

    /// Makes new bytes in `span`; their checksums.
    pub fn make(&mut self, span: &Span, sums: &mut Vec<u64>) {
        sums.clear();
        for part in parts(span.len(), self.granule) {
            self.made += 1;
            let part = span.slice(part);
            part.write_at(0, &self.made.to_le_bytes());
            sums.push(part.checksum());
        }
    }

    /// Notes that bytes with these checksums are on their way to `at`.
    pub fn note(&mut self, at: u64, sums: &[u64]) {
        let first = at as usize / self.granule;
        self.sums[first..first + sums.len()].copy_from_slice(sums);
    }

    /// Checks what was read from `at`.
    ///
    /// # Errors
    /// When it is not what was written there.
    pub fn check(&self, at: u64, span: &Span) -> Result<(), Error> {
        let first = at as usize / self.granule;
        for (part, sum) in parts(span.len(), self.granule).zip(&self.sums[first..]) {
            let from = at + part.start as u64;
            if span.slice(part).checksum() != *sum {
                return Err(Error::Wrong { at: from });
            }
        }
        Ok(())
    }
}

fn parts(len: usize, granule: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(granule).map(move |at| at..at + granule)
}
