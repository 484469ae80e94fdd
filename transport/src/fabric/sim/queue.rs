//! The schedule: what happens next, in order of time and, at one time, of scheduling.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Things to come.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Due<T>>,
    serial: u64,
}

struct Due<T> {
    at: Time,
    serial: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), serial: 0 }
    }

    pub(super) fn push(&mut self, at: Time, what: T) {
        self.serial += 1;
        self.heap.push(Due { at, serial: self.serial, what });
    }

    /// How many things are to come.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|due| due.at)
    }

    /// The next thing, if it is due.
    pub(super) fn pop(&mut self, now: Time) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|due| due.what)
    }
}

impl<T> Due<T> {
    fn order(&self) -> (Time, u64) {
        (self.at, self.serial)
    }
}

// `BinaryHeap` gives the greatest first; the earliest is wanted.
impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Due<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_in_order_at_one_time() {
        let mut queue = Queue::new();
        for (at, what) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            queue.push(Time::from_nanos(at), what);
        }
        assert_eq!(queue.next(), Some(Time::from_nanos(3)));
        assert_eq!(queue.pop(Time::from_nanos(2)), None);
        let order: String = std::iter::from_fn(|| queue.pop(Time::NEVER)).collect();
        assert_eq!(order, "bdac");
    }
}
