//! Property tests of the ring, against a queue and against a mad other side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use proptest::prelude::*;

use super::ring::{Consumer, Producer, Pushed};
use super::ring_cells::Cells;

const WORDS: usize = 64;

fn records() -> impl Strategy<Value = (Option<Vec<u8>>, Option<u32>)> {
    let message = prop::collection::vec(any::<u8>(), 0..200);
    (prop::option::of(message), prop::option::of(any::<u32>()))
        .prop_filter("empty", |(message, immediate)| message.is_some() || immediate.is_some())
}

proptest! {
    #[test]
    fn what_is_pushed_comes_out_in_order(
        steps in prop::collection::vec(prop::option::of(records()), 0..400),
    ) {
        let cells = Cells::new(WORDS);
        let mut producer = Producer::new(Arc::clone(&cells));
        let mut consumer = Consumer::new(Arc::clone(&cells));
        let mut queue = VecDeque::new();
        for step in steps {
            if let Some((message, immediate)) = step {
                if producer.push(message.as_deref(), immediate).unwrap() == Pushed::Done {
                    queue.push_back((message, immediate));
                } else {
                    prop_assert!(!queue.is_empty(), "an empty ring has room");
                }
            } else {
                let next = consumer.peek().unwrap();
                prop_assert_eq!(next.is_some(), !queue.is_empty());
                if let Some(record) = next {
                    let bytes = consumer.take(record);
                    consumer.release();
                    let (message, immediate) = queue.pop_front().unwrap();
                    prop_assert_eq!(record.message.map(|_| bytes), message);
                    prop_assert_eq!(record.immediate, immediate);
                }
            }
        }
    }

    #[test]
    fn a_mad_producer_does_no_harm(
        words in prop::collection::vec(any::<u64>(), WORDS),
        tails in prop::collection::vec(prop_oneof![0..200u64, any::<u64>()], 1..8),
    ) {
        let cells = Cells::new(WORDS);
        for (cell, word) in cells.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        let mut consumer = Consumer::new(Arc::clone(&cells));
        for tail in tails {
            cells.tail.store(tail, Ordering::Relaxed);
            while let Ok(Some(record)) = consumer.peek() {
                let bytes = consumer.take(record);
                prop_assert!(bytes.len() <= WORDS * 8);
                consumer.release();
            }
        }
    }

    #[test]
    fn a_mad_consumer_does_no_harm(heads in prop::collection::vec(any::<u64>(), 1..50)) {
        let cells = Cells::new(WORDS);
        let mut producer = Producer::new(Arc::clone(&cells));
        for head in heads {
            cells.head.store(head, Ordering::Relaxed);
            let _ = producer.push(Some(&[7; 100]), None);
            let _ = producer.has_room_again();
        }
    }

    #[test]
    fn the_kinds_are_checked(header: u64, published in 1..=WORDS as u64) {
        let cells = Cells::new(WORDS);
        cells.words[0].store(header, Ordering::Relaxed);
        cells.tail.store(published, Ordering::Relaxed);
        let (kind, length) = (header & 0xff, header >> 8 & 0xff_ffff);
        let sane = (1..=3).contains(&kind)
            && length.div_ceil(8) < published
            && (kind & 1 == 1 || length == 0);
        prop_assert_eq!(Consumer::new(cells).peek().is_ok(), sane);
    }
}

#[test]
fn room_is_asked_for_and_told() {
    let cells = Cells::new(WORDS);
    let mut producer = Producer::new(Arc::clone(&cells));
    let mut consumer = Consumer::new(Arc::clone(&cells));
    for immediate in 0..WORDS as u32 {
        assert_eq!(producer.push(None, Some(immediate)), Ok(Pushed::Done));
    }
    assert_eq!(producer.has_room_again(), Ok(false));
    assert_eq!(producer.push(None, Some(0)), Ok(Pushed::Full));
    let mut told = 0;
    for _ in 0..WORDS {
        let record = consumer.peek().unwrap().unwrap();
        consumer.take(record);
        told += u32::from(consumer.release());
    }
    assert_eq!(told as usize, WORDS);
    assert_eq!(producer.has_room_again(), Ok(true));
    assert_eq!(producer.has_room_again(), Ok(false));
    assert_eq!(producer.push(None, Some(0)), Ok(Pushed::Done));
    let record = consumer.peek().unwrap().unwrap();
    consumer.take(record);
    assert!(!consumer.release());
}

#[test]
fn two_threads_agree() {
    const RECORDS: u32 = 100_000;
    let cells = Cells::new(WORDS);
    let mut producer = Producer::new(Arc::clone(&cells));
    let mut consumer = Consumer::new(cells);
    let sender = thread::spawn(move || {
        for number in 0..RECORDS {
            let bytes = vec![number as u8; number as usize % 100];
            while producer.push(Some(&bytes), Some(number)).unwrap() == Pushed::Full {
                thread::yield_now();
            }
        }
    });
    for number in 0..RECORDS {
        let record = loop {
            match consumer.peek().unwrap() {
                Some(record) => break record,
                None => thread::yield_now(),
            }
        };
        assert_eq!(record.immediate, Some(number));
        assert_eq!(consumer.take(record), vec![number as u8; number as usize % 100]);
        consumer.release();
    }
    sender.join().unwrap();
}
