//! How the two sides of a transfer are cut into pieces.

use std::ops::Range;

use tranship_transport::Pages;

use crate::dice::Dice;

/// One side.
pub(crate) struct Side {
    pub(crate) pages: Pages,
    /// Its bytes in the order in which they travel.
    pub(crate) offsets: Vec<u64>,
}

impl Side {
    fn of_ranges(ranges: &[Range<u64>]) -> Self {
        let pages = Pages::ranges(ranges.iter().cloned()).expect("few and small");
        Self { pages, offsets: ranges.iter().cloned().flatten().collect() }
    }
}

/// Equally many bytes of each side, all below `reach`: this side's, then the peer's. Half of the
/// time as stretches that leave gaps, else as a page table, a stride or layers describe them.
pub(crate) fn pieces(dice: &mut Dice, reach: u64, reads: bool) -> (Side, Side) {
    // No less than four pages of what is below, each with a gap as long as itself.
    if reach < 64 || dice.percent(50) {
        return stretches(dice, reach);
    }
    let (bytes, count) = (1 + dice.below(reach / 32), 2 * (1 + dice.below(4)));
    let here = regular(dice, reach, bytes, count, !reads);
    // The same bytes in as many pages, in pages of half the length, or in one.
    let (bytes, count) = match dice.below(3) {
        0 if bytes.is_multiple_of(2) => (bytes / 2, count * 2),
        1 => (bytes * count, 1),
        _ => (bytes, count),
    };
    (here, regular(dice, reach, bytes, count, reads))
}

/// `count` pages of `bytes` bytes. A source may name a byte twice.
fn regular(dice: &mut Dice, reach: u64, bytes: u64, count: u64, is_source: bool) -> Side {
    let strided = |from: u64, stride: u64, count: u64| {
        (0..count).flat_map(move |page| from + page * stride..from + page * stride + bytes)
    };
    let furthest = (reach - bytes) / (count - 1).max(1);
    match dice.below(4) {
        0 => {
            let mut indices: Vec<_> = (0..reach / bytes).collect();
            for at in 0..count as usize {
                let other = at + dice.below((indices.len() - at) as u64) as usize;
                indices.swap(at, other);
            }
            indices.truncate(count as usize);
            let pages = Pages::table(bytes, indices.iter().copied()).expect("few and small");
            let offsets = indices.iter().flat_map(|at| at * bytes..(at + 1) * bytes).collect();
            Side { pages, offsets }
        }
        1 if count.is_multiple_of(2) && bytes * count <= reach / 2 => {
            // Two layers, each as long as half of what there is.
            let (half, count) = (reach / 2, count / 2);
            let stride = bytes + dice.below((half - bytes) / (count - 1).max(1) - bytes + 1);
            let from = dice.below(half - bytes - stride * (count - 1) + 1);
            let mut layers = [0, half];
            if dice.percent(50) {
                layers.swap(0, 1);
            }
            let pages = Pages::strided(from, bytes, stride, count as u32).expect("few and small");
            let pages = pages.layers(layers).expect("two");
            let offsets = layers.iter().flat_map(|layer| strided(layer + from, stride, count));
            Side { pages, offsets: offsets.collect() }
        }
        2 if is_source => {
            let stride = dice.below(bytes);
            let from = dice.below(reach - bytes - stride * (count - 1) + 1);
            let pages = Pages::strided(from, bytes, stride, count as u32).expect("few and small");
            Side { pages, offsets: strided(from, stride, count).collect() }
        }
        _ => {
            let stride = bytes + dice.below(furthest - bytes + 1);
            let from = dice.below(reach - bytes - stride * (count - 1) + 1);
            let pages = Pages::strided(from, bytes, stride, count as u32).expect("few and small");
            Side { pages, offsets: strided(from, stride, count).collect() }
        }
    }
}

/// Equally many bytes of each side, in stretches that leave gaps.
fn stretches(dice: &mut Dice, reach: u64) -> (Side, Side) {
    let (mut here, mut there) = (some_of(dice, reach), some_of(dice, reach));
    let bytes = |of: &[Range<u64>]| of.iter().map(|it| it.end - it.start).sum::<u64>();
    let len = bytes(&here).min(bytes(&there));
    for side in [&mut here, &mut there] {
        truncate(side, len, reach);
    }
    (Side::of_ranges(&here), Side::of_ranges(&there))
}

/// Keeps the first `len` bytes, but for the last of them, which is the last byte below `reach`: so
/// that a reach beyond a window is one.
fn truncate(ranges: &mut Vec<Range<u64>>, len: u64, reach: u64) {
    if len == 0 {
        return ranges.clear();
    }
    let mut left = len - 1;
    let mut kept: Vec<Range<u64>> = Vec::new();
    for range in ranges.iter() {
        let bytes = left.min(range.end - range.start);
        if bytes > 0 {
            kept.push(range.start..range.start + bytes);
        }
        left -= bytes;
    }
    kept.push(reach - 1..reach);
    *ranges = kept;
}

/// Stretches below `reach`, ascending.
fn some_of(dice: &mut Dice, reach: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < reach {
        let end = (at + 1 + dice.below(120)).min(reach);
        ranges.push(at..end);
        at = end + dice.below(30);
    }
    ranges
}
