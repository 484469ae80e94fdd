//! Memory larger than the caches, used piece by piece so that copies really go to and from it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tranship_transport::copy::copy;
use tranship_transport::{HostMemory, Memory};

use super::Error;
use super::rounds::Tally;

/// Pieces start on cache lines.
const ALIGN_BYTES: u64 = 64;

/// The pieces of one size in some memory, given out round and round.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    size: u64,
    stride: u64,
    count: u64,
    next: u64,
}

impl Pieces {
    /// Pieces of `size` bytes in `total` bytes.
    ///
    /// # Panics
    /// When not one fits.
    #[must_use]
    pub fn new(size: u64, total: u64) -> Self {
        let stride = size.next_multiple_of(ALIGN_BYTES);
        let count = total / stride;
        assert!(count > 0, "{size} bytes do not fit into {total}");
        Self { size, stride, count, next: 0 }
    }

    /// How long each is, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Where the `index`-th is.
    #[must_use]
    pub fn at(&self, index: u64) -> Range<u64> {
        let start = index % self.count * self.stride;
        start..start + self.size
    }

    /// Where the next one is.
    pub fn turn(&mut self) -> Range<u64> {
        let piece = self.at(self.next);
        self.next = (self.next + 1) % self.count;
        piece
    }
}

/// Memory of `bytes` bytes in place, with content that is not all zero.
///
/// # Errors
/// When there is not so much.
pub fn memory(bytes: u64) -> Result<Arc<Memory>, Error> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = HostMemory::new(bytes).name("bench").huge_pages().prefault().build()?;
    memory.fill(0..bytes, 0x5a)?;
    Ok(Arc::new(memory))
}

/// The limit: copies of one piece after the other.
pub fn copies(
    from: &Memory,
    to: &Memory,
    mut pieces: Pieces,
) -> impl FnMut(&mut Tally) -> Result<(), Error> {
    move |tally: &mut Tally| {
        let began = Instant::now();
        copy_range(from, to, &pieces.turn());
        tally.worked(began, 1, pieces.size());
        Ok(())
    }
}

/// A streaming copy of `range` of one memory to the same place of another: what the memory allows.
///
/// # Panics
/// When either is shorter.
#[expect(unsafe_code, reason = "the limit is the very copy that the transport uses")]
fn copy_range(from: &Memory, to: &Memory, range: &Range<u64>) {
    let (start, end) = (range.start as usize, range.end as usize);
    assert!(start <= end && end <= from.len().min(to.len()));
    // SAFETY: the range was checked to lie in both memories, which are different mappings.
    unsafe { copy(from.as_ptr().add(start), to.as_ptr().add(start), end - start) };
}

/// Memory that no other process and no [`copies`] can write: what is borrowed stays as it is.
#[derive(Debug)]
pub struct Private(Arc<Memory>);

impl Private {
    /// Memory of `bytes` bytes in place.
    ///
    /// # Errors
    /// When there is not so much.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        memory(bytes).map(Self)
    }

    /// The bytes of a piece.
    #[must_use]
    #[expect(unsafe_code, reason = "a cache client stores slices")]
    pub fn bytes(&self, range: &Range<u64>) -> &[u8] {
        let range = range.start as usize..range.end as usize;
        // SAFETY: the memory is this value's alone, and changing it takes an exclusive borrow.
        unsafe { self.0.slice(range) }.expect("a piece of this memory")
    }

    /// The bytes of a piece, to be changed.
    #[expect(unsafe_code, reason = "a cache client reads into a slice")]
    pub fn bytes_mut(&mut self, range: &Range<u64>) -> &mut [u8] {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(start <= end && end <= self.0.len());
        // SAFETY: in bounds; the memory is this value's alone and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().add(start), end - start) }
    }
}

/// The numbers below `count` in an order that depends on the seed alone (Fisher and Yates).
#[must_use]
pub fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    // A linear congruential generator modulo 2^64 with Knuth's factor; its upper bits serve.
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (u128::from(state).wrapping_mul(u128::from(bound)) >> 64) as usize
    };
    let mut numbers: Vec<u64> = (0..count).collect();
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, below(at as u64 + 1));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_apart_and_come_round() {
        let mut pieces = Pieces::new(100, 400);
        assert_eq!(pieces.count(), 3);
        let turns: Vec<_> = (0..4).map(|_| pieces.turn()).collect();
        assert_eq!(turns, [0..100, 128..228, 256..356, 0..100]);
    }

    #[test]
    fn an_order_has_every_number_once_and_few_neighbours() {
        let order = shuffled(10_000, 1);
        let neighbours = order.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(neighbours < 10, "{neighbours} neighbours");
        assert_ne!(order, shuffled(10_000, 2));
        let mut sorted = order;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..10_000));
    }
}
