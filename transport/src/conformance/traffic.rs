//! Many at once.

use super::harness::Harness;
use super::kit::{AMPLE, Dice, Pair, all_done, bytes_of, engine, region, start};
use crate::window::Access;

/// Many engines write to one at the same time; each byte ends where it belongs.
pub fn many_write_to_one<H: Harness>(harness: &H) {
    const WRITERS: u64 = 8;
    const SHARE_BYTES: u64 = 16_000;
    const PIECE_BYTES: u64 = 4_000;
    let mut dice = Dice::new(harness);
    let owner = engine(harness);
    let target = region(&owner, (WRITERS * SHARE_BYTES) as usize);
    let arrivals = owner.counter().unwrap();
    let mut expected = Vec::new();
    let (mut writers, mut sent) = (Vec::new(), Vec::new());
    for at in 0..WRITERS {
        let writer = engine(harness);
        let source = region(&writer, SHARE_BYTES as usize);
        expected.extend(dice.fill(&source));
        let window = target.window(at * SHARE_BYTES..(at + 1) * SHARE_BYTES).unwrap();
        let to = writer.open(&window.descriptor()).unwrap();
        for from in (0..SHARE_BYTES).step_by(PIECE_BYTES as usize) {
            let piece = from..from + PIECE_BYTES;
            let write =
                writer.write(source.slice(piece.clone()).unwrap(), to.slice(piece).unwrap());
            sent.push(start(write.immediate(arrivals.slot()).deadline(AMPLE)));
        }
        writers.push((writer, source, window));
    }
    let all = WRITERS * SHARE_BYTES / PIECE_BYTES;
    assert_eq!(arrivals.wait(all, AMPLE).unwrap(), all);
    assert!(bytes_of(&target) == expected);
    all_done(&sent);
}

/// Both sides write, read and send to each other at the same time.
pub fn traffic_goes_both_ways<H: Harness>(harness: &H) {
    const BYTES: u64 = 30_000;
    let mut dice = Dice::new(harness);
    let there = Pair::new(harness, BYTES as usize);
    let to_b = dice.fill(&there.source);
    // The same engines the other way round, with memories of their own.
    let (a, b) = (there.a.clone(), there.b.clone());
    let (source, target) = (region(&b, BYTES as usize), region(&a, BYTES as usize));
    let back = Pair { a: b, b: a, source, target };
    let to_a = dice.fill(&back.source);
    let (_w1, at_b) = there.offer_part(0..BYTES, Access::WRITE | Access::READ);
    let (_w2, at_a) = back.offer_part(0..BYTES, Access::WRITE | Access::READ);
    let (got_b, got_a) = (there.b.counter().unwrap(), back.b.counter().unwrap());
    let mut sent = Vec::new();
    for from in (0..BYTES).step_by(1000) {
        sent.push(start(there.write(from..from + 1000, &at_b, from).immediate(got_b.slot())));
        sent.push(start(back.write(from..from + 1000, &at_a, from).immediate(got_a.slot())));
        sent.push(start(there.a.send(at_b.peer(), *b"ping").deadline(AMPLE)));
        sent.push(start(back.a.send(at_a.peer(), *b"pong").deadline(AMPLE)));
    }
    assert_eq!(got_b.wait(30, AMPLE).unwrap(), 30);
    assert_eq!(got_a.wait(30, AMPLE).unwrap(), 30);
    assert!(bytes_of(&there.target) == to_b);
    assert!(bytes_of(&back.target) == to_a);
    for _ in 0..30 {
        assert_eq!(super::messages::next_message(&there.b).1, b"ping");
        assert_eq!(super::messages::next_message(&there.a).1, b"pong");
    }
    all_done(&sent);
}
