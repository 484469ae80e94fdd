//! What goes ahead of what, and that nobody is left behind.

use super::*;
use crate::fabric::shm::crossing::{LOOK_EVERY_BYTES, POLLER_CHUNK_BYTES};

const BULK_BYTES: u64 = 8 << 20;
const URGENT_BYTES: u64 = 512 << 10;

/// Two connected fabrics with memory, `a` having written to `b` before.
struct World {
    pair: Pair,
    ours: RegionId,
    here: Arc<Memory>,
    remote: Remote,
    _there: Arc<Memory>,
}

impl World {
    fn new() -> Self {
        let mut pair = Pair::new();
        let (theirs, there) = pair.b.region(BULK_BYTES as usize);
        let (ours, here) = pair.a.region(BULK_BYTES as usize);
        let remote = pair.b.grant(theirs, 0..BULK_BYTES, ALL());
        assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
        Self { pair, ours, here, remote, _there: there }
    }

    fn post(&mut self, lane: Lane, len: u64, immediate: Option<u32>) -> (OpId, Posted) {
        let work = write(local(self.ours, &self.here, 0..len), self.remote, immediate);
        self.pair.a.post_in(lane, self.pair.to_b, work)
    }
}

impl Node {
    /// Polls until `done`; how often.
    fn polls_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> u64 {
        let mut polls = 0;
        wait(self, what, |node| {
            polls += 1;
            done(node).then_some(polls)
        })
    }
}

fn ended(node: &Node, op: OpId) -> bool {
    node.events.iter().any(|event| matches!(event, Event::Completed { op: it, .. } if *it == op))
}

#[test]
fn what_is_small_waits_for_no_bulk() {
    let mut world = World::new();
    for _ in 0..100 {
        assert_eq!(world.post(Lane::Bulk, BULK_BYTES, None).1, Posted::Pending);
    }
    assert_eq!(world.post(Lane::Latency, 64, Some(1)).1, Posted::Done);
    let signal = Work::Signal { immediate: Immediate(2) };
    let (_, posted) = world.pair.a.post_in(Lane::Latency, world.pair.to_b, signal);
    assert_eq!(posted, Posted::Done);
    world.pair.b.poll();
    assert_eq!(world.pair.b.arrived(), Some(Immediate(1)));
    assert_eq!(world.pair.b.arrived(), Some(Immediate(2)));
}

#[test]
fn what_is_urgent_and_large_overtakes_all_bulk() {
    let mut world = World::new();
    let bulk: Vec<_> = (0..100).map(|_| world.post(Lane::Bulk, BULK_BYTES, None).0).collect();
    let (urgent, posted) = world.post(Lane::Latency, URGENT_BYTES, None);
    assert_eq!(posted, Posted::Pending);
    let polls = world.pair.a.polls_until("the urgent one", |a| ended(a, urgent));
    // Every seventeenth chunk at most is of bulk meanwhile.
    assert!(polls <= URGENT_BYTES / POLLER_CHUNK_BYTES + 1, "{polls} polls");
    assert!(bulk.iter().all(|&op| !ended(&world.pair.a, op)));
}

#[test]
fn bulk_goes_on_beside_a_flood_of_urgent_ones() {
    let mut world = World::new();
    let (bulk, _) = world.post(Lane::Bulk, BULK_BYTES, None);
    let mut urgent = world.post(Lane::Latency, URGENT_BYTES, None).0;
    let polls = world.pair.a.polls_until("bulk", |a| {
        if ended(a, urgent) {
            let work = write(local(world.ours, &world.here, 0..URGENT_BYTES), world.remote, None);
            urgent = a.post_in(Lane::Latency, world.pair.to_b, work).0;
        }
        ended(a, bulk)
    });
    assert!(polls <= 18 * (BULK_BYTES / POLLER_CHUNK_BYTES), "{polls} polls");
}

/// However many writes one peer is sent, another's is done in as many turns as if there were two.
#[test]
fn peers_are_served_in_turns() {
    const LEN: u64 = 2 << 20;
    let mut world = World::new();
    let mut c = Node::new(Config::new());
    let (to_c, _) = connect(&mut world.pair.a, &mut c);
    let (theirs, _there) = c.region(LEN as usize);
    let remote = c.grant(theirs, 0..LEN, ALL());
    let a = &mut world.pair.a;
    let (op, _) = a.post(to_c, write(local(world.ours, &world.here, 0..8), remote, None));
    until(a, &mut c, "a mapping", |a, _| a.status(op));
    for _ in 0..100 {
        world.post(Lane::Bulk, BULK_BYTES, None);
    }
    let side = local(world.ours, &world.here, 0..LEN);
    let (op, _) = world.pair.a.post(to_c, write(side, remote, None));
    let polls = world.pair.a.polls_until("the other peer's", |a| ended(a, op));
    assert!(polls <= 2 * (LEN / POLLER_CHUNK_BYTES) + 1, "{polls} polls");
}

/// What is cancelled while it waits for its turn ends at once, and leaves nothing behind.
#[test]
fn what_is_cancelled_out_of_turn_is_forgotten() {
    let mut world = World::new();
    let ops: Vec<_> = (0..1000).map(|_| world.post(Lane::Bulk, BULK_BYTES, None).0).collect();
    let (kept, cancelled) = ops.split_first().unwrap();
    for op in cancelled {
        world.pair.a.fabric.cancel(*op, Reason::Cancelled);
    }
    world.pair.a.poll();
    for op in cancelled {
        let refused = Some(Status::Refused(Reason::Cancelled));
        assert_eq!(world.pair.a.status(*op), refused);
    }
    let kept = *kept;
    let polls = world.pair.a.polls_until("the one that was kept", |a| ended(a, kept));
    assert!(polls <= BULK_BYTES / POLLER_CHUNK_BYTES + 1, "{polls} polls");
    assert!(world.pair.a.fabric.jobs.is_empty());
    assert!(!world.pair.a.fabric.jobs.can_go_on());
}

/// In the middle of a chunk the thread that polls turns to what has arrived.
#[test]
fn an_arrival_cuts_a_chunk_short() {
    let mut world = World::new();
    let (op, _) = world.post(Lane::Bulk, BULK_BYTES, None);
    let undisturbed = BULK_BYTES / POLLER_CHUNK_BYTES;
    let to_a = world.pair.to_a;
    let mut polls = 0;
    while !ended(&world.pair.a, op) {
        polls += 1;
        assert!(polls <= BULK_BYTES / LOOK_EVERY_BYTES, "no progress");
        let signal = Work::Signal { immediate: Immediate(7) };
        assert_eq!(world.pair.b.post(to_a, signal).1, Posted::Done);
        world.pair.a.poll();
        assert_eq!(world.pair.a.arrived(), Some(Immediate(7)));
    }
    assert!(polls > 2 * undisturbed, "{polls} polls");
}
