//! Two fabrics that are polled in turns.

use std::time::Instant;

use super::PATIENCE;
use super::node::{Node, Subject};
use crate::fabric::{OpId, PeerId, Posted, Status, Work};

/// Polls both until `done`.
pub(crate) fn until<F: Subject, T>(
    a: &mut Node<F>,
    b: &mut Node<F>,
    what: &str,
    mut done: impl FnMut(&mut Node<F>, &mut Node<F>) -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        a.poll();
        b.poll();
        if let Some(result) = done(a, b) {
            return result;
        }
        if start.elapsed() > PATIENCE {
            panic!("hangs: {what}; reports {:?} and {:?}", a.events, b.events);
        }
    }
}

/// Connects `a` to `b`; what each calls the other.
pub(crate) fn connect<F: Subject>(a: &mut Node<F>, b: &mut Node<F>) -> (PeerId, PeerId) {
    let dialled = a.fabric.connect(&b.address());
    let (mut to_b, mut to_a) = (None, None);
    let pair = until(a, b, "connecting", |a, b| {
        to_b = to_b.or_else(|| a.up());
        to_a = to_a.or_else(|| b.up());
        Some((to_b?, to_a?))
    });
    assert_eq!(pair.0, dialled);
    pair
}

/// Two connected fabrics: `a` dialled `b`.
pub(crate) struct Pair<F> {
    pub(crate) a: Node<F>,
    pub(crate) b: Node<F>,
    /// What `a` calls `b`.
    pub(crate) to_b: PeerId,
    /// What `b` calls `a`.
    pub(crate) to_a: PeerId,
}

impl<F: Subject> Pair<F> {
    pub(crate) fn new() -> Self {
        Self::of(F::Config::default(), F::Config::default())
    }

    pub(crate) fn of(a: F::Config, b: F::Config) -> Self {
        let (mut a, mut b) = (Node::new(a), Node::new(b));
        let (to_b, to_a) = connect(&mut a, &mut b);
        Self { a, b, to_b, to_a }
    }

    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        done: impl FnMut(&mut Node<F>, &mut Node<F>) -> Option<T>,
    ) -> T {
        until(&mut self.a, &mut self.b, what, done)
    }

    /// Waits for the end of an operation of `a`.
    pub(crate) fn end(&mut self, op: OpId) -> Status {
        self.until("an operation", |a, _| a.status(op))
    }

    /// Does an operation of `a` on `b` and says how it ended.
    pub(crate) fn run(&mut self, work: Work<'_>) -> Status {
        match self.a.post(self.to_b, work) {
            (_, Posted::Done) => Status::Done,
            (_, Posted::Refused(reason)) => Status::Refused(reason),
            (_, Posted::Busy) => panic!("busy"),
            (op, Posted::Pending) => self.end(op),
        }
    }
}
