//! Messages.

use super::harness::Harness;
use super::kit::{AMPLE, Dice, address, all_done, engine, start};
use crate::engine::Engine;
use crate::outcome::{Outcome, Reason};
use crate::peer::{Incoming, Peer};

/// The next message, whatever else comes in between.
pub(super) fn next_message(engine: &Engine) -> (Peer, Vec<u8>) {
    loop {
        match engine.recv(AMPLE) {
            Some(Incoming::Message { from, bytes }) => return (from, bytes),
            Some(_) => {}
            None => panic!("no message within {AMPLE:?}"),
        }
    }
}

/// Messages of one peer arrive in order, once; answers go back over the same connection.
pub fn messages_arrive_in_order_and_once<H: Harness>(harness: &H) {
    const MESSAGES: u32 = 100;
    let (a, b) = (engine(harness), engine(harness));
    let peer = a.connect(&address(&b), AMPLE).unwrap();
    let sent: Vec<_> = (0..MESSAGES)
        .map(|number| start(a.send(peer, number.to_le_bytes()).deadline(AMPLE)))
        .collect();
    let mut answers = Vec::new();
    for number in 0..MESSAGES {
        let (from, bytes) = next_message(&b);
        assert_eq!(bytes, number.to_le_bytes(), "message {number}");
        answers.push(start(b.send(from, bytes).deadline(AMPLE)));
    }
    for number in 0..MESSAGES {
        let (from, bytes) = next_message(&a);
        assert_eq!((from, bytes.as_slice()), (peer, &number.to_le_bytes()[..]), "answer {number}");
    }
    all_done(&sent);
    all_done(&answers);
    assert_eq!((a.stats().messages_sent, a.stats().messages_received), (100, 100));
    assert_eq!((b.stats().messages_sent, b.stats().messages_received), (100, 100));
}

/// Messages of every length up to the longest arrive whole.
pub fn messages_of_every_length_arrive<H: Harness>(harness: &H) {
    let mut dice = Dice::new(harness);
    let (a, b) = (engine(harness), engine(harness));
    let peer = a.connect(&address(&b), AMPLE).unwrap();
    let most = a.message_bytes_max();
    let lengths = [0, 1, 7, 8, 9, 63, 64, 65, most / 2 + 1, most - 1, most];
    for len in lengths.into_iter().filter(|len| *len <= most) {
        let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
        let sent = start(a.send(peer, bytes.clone()).deadline(AMPLE));
        assert!(next_message(&b).1 == bytes, "{len} bytes");
        assert_eq!(sent.wait(), Outcome::Done);
    }
}

/// A message that is too long is refused at once and disturbs nobody.
pub fn a_message_too_long_is_refused<H: Harness>(harness: &H) {
    let (a, b) = (engine(harness), engine(harness));
    let peer = a.connect(&address(&b), AMPLE).unwrap();
    let long = vec![1; a.message_bytes_max() + 1];
    assert_eq!(a.send(peer, long).wait(), Outcome::Rejected(Reason::TooLong));
    let sent = start(a.send(peer, *b"short").deadline(AMPLE));
    assert_eq!(next_message(&b).1, b"short");
    assert_eq!(sent.wait(), Outcome::Done);
}
