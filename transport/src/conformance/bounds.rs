//! Windows are all that peers see.

use super::harness::{Harness, skip};
use super::kit::{AMPLE, Dice, Pair, all_done, bytes_of, fill, is_all, start};
use crate::outcome::{Outcome, Reason};
use crate::window::{Access, WindowId};

/// "Nothing outside the registered window is ever written."
pub fn nothing_outside_the_window_is_written<H: Harness>(harness: &H) {
    const REGION_BYTES: u64 = 40_000;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, REGION_BYTES as usize);
    fill(&pair.source, 7);
    for _ in 0..5 {
        fill(&pair.target, 0xC5);
        let start_at = dice.below(REGION_BYTES);
        let len = 1 + dice.below(REGION_BYTES - start_at);
        let (window, to) = pair.offer_part(start_at..start_at + len, Access::WRITE);
        let mut expected = vec![0xC5; REGION_BYTES as usize];
        let sent: Vec<_> = (0..6)
            .map(|_| {
                let at = dice.below(len);
                let bytes = 1 + dice.below(len - at);
                let from = (start_at + at) as usize;
                expected[from..from + bytes as usize].fill(7);
                start(pair.write(0..bytes, &to, at))
            })
            .collect();
        all_done(&sent);
        window.revoke().unwrap();
        assert!(bytes_of(&pair.target) == expected, "window {start_at}..+{len}");
    }
}

/// "A forged remote key is refused."
pub fn a_forged_key_is_refused<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (window, _to) = pair.offer();
    for _ in 0..4 {
        let mut forged = window.descriptor();
        forged.routes[0].key ^= 1 << dice.below(64);
        let outcome = pair.write_with(&forged, 4096);
        assert_eq!(outcome, Outcome::Rejected(Reason::Forged));
    }
    assert!(is_all(&bytes_of(&pair.target), 0));
    assert_eq!(pair.write_with(&window.descriptor(), 4096), Outcome::Done);
}

/// "A stale remote key is refused": that of a revoked window, also when its place has a new owner.
pub fn a_stale_generation_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (window, to) = pair.offer();
    let old = window.descriptor();
    assert_eq!(pair.write(0..0, &to, 0).wait(), Outcome::Done);
    window.revoke().unwrap();
    assert_eq!(pair.write_with(&old, 4096), Outcome::Rejected(Reason::Stale));
    let (_next, to) = pair.offer();
    assert_eq!(pair.write_with(&old, 4096), Outcome::Rejected(Reason::Stale));
    assert_eq!(
        pair.read(&pair.a.open(&old).unwrap(), 0, 0..64).wait().reason(),
        Some(Reason::Stale)
    );
    assert!(is_all(&bytes_of(&pair.target), 0));
    assert_eq!(pair.write(0..4096, &to, 0).wait(), Outcome::Done);
}

/// A key opens its own window and no other: not one that was never granted, not a later generation,
/// not a neighbour.
pub fn a_wrong_window_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 8192);
    fill(&pair.source, 7);
    let (first, _) = pair.offer_part(0..4096, Access::WRITE);
    let (second, _) = pair.offer_part(4096..8192, Access::WRITE);
    let WindowId { slot, generation } = first.id();
    let windows = [
        WindowId { slot, generation: generation + 1 },
        WindowId { slot: slot + 77, generation },
        second.id(),
    ];
    for window in windows {
        let mut wrong = first.descriptor();
        wrong.window = window;
        let outcome = pair.write_with(&wrong, 4096);
        assert!(
            matches!(outcome, Outcome::Rejected(Reason::Forged | Reason::Stale)),
            "{window:?}: {outcome}"
        );
    }
    assert!(is_all(&bytes_of(&pair.target), 0));
}

/// "Nothing outside the registered window": what reaches past it is refused whole, whatever length
/// a descriptor claims.
pub fn what_is_out_of_bounds_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 8192);
    fill(&pair.source, 7);
    let (window, to) = pair.offer_part(1024..4096, Access::WRITE | Access::READ);
    assert!(to.slice(0..3073).is_err(), "the handle knows its length");
    let mut longer = window.descriptor();
    longer.len = u64::MAX;
    let to = pair.a.open(&longer).unwrap();
    for at in [1, 3071, 3072, 3073, 1 << 40, u64::MAX - 3072] {
        let outcome = pair.write(0..3072, &to, at).wait();
        assert_eq!(outcome, Outcome::Rejected(Reason::OutOfBounds), "write at {at}");
        let outcome = pair.read(&to, at, 0..3072).wait();
        assert_eq!(outcome, Outcome::Rejected(Reason::OutOfBounds), "read at {at}");
    }
    assert!(is_all(&bytes_of(&pair.target), 0));
    assert!(is_all(&bytes_of(&pair.source), 7));
    assert_eq!(pair.write(0..3072, &to, 0).wait(), Outcome::Done);
}

/// A window grants what it says and nothing else.
pub fn what_is_not_granted_is_refused<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 4096);
    fill(&pair.source, 7);
    let (_write, writable) = pair.offer_part(0..4096, Access::WRITE);
    let (_read, readable) = pair.offer_part(0..4096, Access::READ);
    let denied = Outcome::Rejected(Reason::Denied);
    assert_eq!(pair.read(&writable, 0, 0..4096).wait(), denied);
    assert_eq!(pair.write(0..4096, &readable, 0).wait(), denied);
    let map = pair.a.map(&writable, AMPLE).unwrap_err();
    let unsupported = Outcome::Rejected(Reason::Unsupported);
    assert!(map.outcome == denied || map.outcome == unsupported, "{}", map.outcome);
    assert!(is_all(&bytes_of(&pair.target), 0));
    assert!(is_all(&bytes_of(&pair.source), 7));
}

/// A mapped window is the peer's memory itself: in both directions when it grants writes, else to
/// be read only.
pub fn a_mapping_is_the_window<H: Harness>(harness: &H) {
    let pair = Pair::new(harness, 8192);
    let (_window, remote) = pair.offer_part(0..8192, Access::MAP | Access::WRITE | Access::READ);
    let mapping = match pair.a.map(&remote, AMPLE) {
        Ok(mapping) => mapping,
        Err(error) if error.outcome == Outcome::Rejected(Reason::Unsupported) => {
            skip("the fabric cannot map")
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(mapping.len(), 8192);
    // SAFETY: inside the mapping; nobody else touches these bytes in this test.
    unsafe { mapping.as_ptr().add(8191).write_volatile(0xAB) };
    assert_eq!(bytes_of(&pair.target)[8191], 0xAB);
    let (_window, remote) = pair.offer_part(0..8192, Access::MAP | Access::READ);
    let readable = pair.a.map(&remote, AMPLE).unwrap();
    pair.target.memory().write_at(0, &[0xCD]).unwrap();
    for mapping in [&mapping, &readable] {
        // SAFETY: as above.
        assert_eq!(unsafe { mapping.as_ptr().read_volatile() }, 0xCD);
    }
    assert!(
        pair.target.window_with(0..4096, Access::MAP).is_err(),
        "only whole regions are mapped"
    );
}
