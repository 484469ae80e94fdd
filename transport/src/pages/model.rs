//! What a list of pages is, told without a cursor, for tests.

use std::ops::Range;

use super::Run;

/// Where the pieces of some layers lie, in their order.
pub(crate) fn pieces(starts: &[u64], runs: &[Run]) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    for start in starts {
        for run in runs {
            for piece in 0..u64::from(run.count) {
                let from = start + run.offset + piece * run.stride;
                pieces.push(from..from + run.bytes);
            }
        }
    }
    pieces
}

/// Where their bytes lie, one by one.
pub(crate) fn places(starts: &[u64], runs: &[Run]) -> Vec<u64> {
    pieces(starts, runs).into_iter().flatten().collect()
}
