//! Lists of pages as a peer may describe them.

use tranship_transport::{Pages, Plan, Run};

/// More pieces than this are not walked through: time is better spent on other lists.
const WALKED_MAX: u64 = 4096;
/// So are longer runs not made: they are looked at piece by piece where runs cross.
const COUNT_MASK: u32 = 0x3ff;

/// Two lists and the pieces that a transfer between them consists of: every byte once, none outside
/// of where the lists end.
pub fn pages(bytes: &[u8]) {
    let (longest, rest) = match bytes.split_first() {
        Some((first, rest)) => (1 << (first % 64), rest),
        None => return,
    };
    let (ours, theirs) = rest.split_at(rest.len() / 2);
    let (Some(ours), Some(theirs)) = (list(ours), list(theirs)) else { return };
    let (bytes, ends) = (ours.bytes(), (ours.end(), theirs.end()));
    let few = ours.pieces().max(theirs.pieces()) <= WALKED_MAX && bytes / longest <= WALKED_MAX;
    let Ok(plan) = Plan::new(ours, theirs) else { return };
    assert_eq!(plan.bytes(), bytes);
    if !few {
        return;
    }
    let mut sum = 0_u64;
    for piece in plan.pieces(longest) {
        assert!(piece.len > 0 && piece.len <= longest, "{piece:?} of at most {longest}");
        assert!(piece.local.checked_add(piece.len).is_some_and(|end| end <= ends.0), "{piece:?}");
        assert!(piece.remote.checked_add(piece.len).is_some_and(|end| end <= ends.1), "{piece:?}");
        sum += piece.len;
    }
    assert_eq!(sum, bytes);
}

/// Runs of four numbers each, and the layers in what is left.
fn list(bytes: &[u8]) -> Option<Pages> {
    let (count, bytes) = bytes.split_first()?;
    let mut numbers = bytes.chunks(4).map(number);
    let mut runs = Vec::new();
    for _ in 0..count % 8 {
        let mut next = || numbers.next();
        let (offset, bytes, stride, count) = (next()?, next()?, next()?, next()?);
        runs.push(Run { offset, bytes, stride, count: count as u32 & COUNT_MASK });
    }
    let pages = Pages::runs(runs).ok()?;
    let layers: Vec<u64> = numbers.collect();
    if layers.is_empty() { Some(pages) } else { pages.layers(layers).ok() }
}

/// Small numbers in three bytes, and with the fourth the large ones.
fn number(bytes: &[u8]) -> u64 {
    let mut four = [0; 4];
    four[..bytes.len()].copy_from_slice(bytes);
    let shift = four[3];
    four[3] = 0;
    u64::from(u32::from_le_bytes(four)) << (shift % 64)
}
