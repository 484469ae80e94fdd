//! Messages: over a rail where one can carry them, else through the streams; in order and once,
//! whichever way each of them took.
//!
//! Every message has a number, and whoever receives them hands them over in the order of these. What
//! went over a rail is kept until the rail's device says that it is there; when the rail fails before
//! that, it goes once more, through the streams, and whoever has it already drops it.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{HashMap, VecDeque};

use super::device::Room;
use super::fabric::Rdma;
use super::hub::Hub;
use super::link::Link;
use super::op::{Batch, Load};
use super::words::Word;
use crate::fabric::{Event, OpId, PeerId, Posted, Work};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::outcome::Reason;

/// What goes before each message: its number, and what to deliver after it.
pub(super) const HEAD_BYTES: usize = 16;
/// Messages that a peer has not taken, over rails: what devices keep receives for.
pub(in crate::fabric) const RAIL_MAX: u64 = 32;
/// What messages through the streams may weigh that follow one of which it is not known whether it is
/// there: the peer has to keep them.
const AHEAD_MAX: usize = 1 << 20;
/// What a peer may make us keep so: of an honest one, that, what it was granted in the streams, and
/// some more.
const EARLY_MAX: usize = 4 << 20;
/// What each message weighs beside its bytes.
const WEIGHT: usize = 64;
/// How often a peer is told how many of its messages were taken.
const TOLD_EVERY: u64 = RAIL_MAX / 4;

/// A message that came.
#[derive(Debug)]
struct Letter {
    bytes: Vec<u8>,
    immediate: Option<Immediate>,
}

/// What a link has sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The number of the next message.
    next: u64,
    /// How many the peer has taken, as it said.
    taken: u64,
    /// Those under way over rails, heads included, by number.
    flying: BTreeMap<u64, Vec<u8>>,
    /// Those of them whose rail has failed.
    again: VecDeque<u64>,
    /// What the messages weigh that went through the streams while some were flying.
    ahead: usize,
}

/// How a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Over a rail, which takes it from here.
    Rail,
    /// Through the streams, or nowhere.
    Streams(Posted),
}

/// What came from a peer. It outlives the link, until the engine has taken it all.
#[derive(Debug, Default)]
struct Inbox {
    /// The number of the next message.
    next: u64,
    /// Those that came before their turn, and what they weigh.
    early: BTreeMap<u64, Letter>,
    weight: usize,
    /// Those whose turn it is.
    ready: VecDeque<Letter>,
    /// How many the engine has taken, and of how many the peer was told.
    taken: u64,
    told: u64,
    /// The end of the connection, which is reported behind the last message.
    down: Option<Event>,
    /// It was hung up on for what it sent; nothing more of it is looked at.
    unwelcome: bool,
}

fn head(number: u64, immediate: Option<Immediate>) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&number.to_le_bytes());
    if let Some(Immediate(word)) = immediate {
        head[8..12].copy_from_slice(&word.to_le_bytes());
        head[12] = 1;
    }
    head
}

/// The number and the content of a message, as it came; `None` when it is none.
fn open(mut bytes: Vec<u8>) -> Option<(u64, Letter)> {
    let head: [u8; HEAD_BYTES] = *bytes.first_chunk()?;
    let number = u64::from_le_bytes(*head.first_chunk()?);
    let word = u32::from_le_bytes(*head[8..].first_chunk()?);
    let immediate = match head[12..] {
        [0, 0, 0, 0] if word == 0 => None,
        [1, 0, 0, 0] => Some(Immediate(word)),
        _ => return None,
    };
    bytes.drain(..HEAD_BYTES);
    Some((number, Letter { bytes, immediate }))
}

/// The way that a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Rail,
    Streams,
}

impl Inbox {
    /// Takes in a message; whether it makes sense.
    fn take_in(&mut self, by: By, bytes: Vec<u8>) -> bool {
        let Some((number, letter)) = open(bytes) else { return false };
        // Rails have no other bound: whoever keeps to what it was told never gets there.
        if by == By::Rail && number >= self.taken + RAIL_MAX {
            return false;
        }
        if number < self.next {
            return true;
        }
        let weight = |letter: &Letter| letter.bytes.len() + WEIGHT;
        if let Entry::Vacant(place) = self.early.entry(number) {
            self.weight += weight(&letter);
            place.insert(letter);
        }
        while let Some(letter) = self.early.remove(&self.next) {
            self.weight -= weight(&letter);
            self.ready.push_back(letter);
            self.next += 1;
        }
        self.weight <= EARLY_MAX
    }
}

impl Link {
    /// Sends a message.
    pub(super) fn send(
        &mut self,
        hub: &mut Hub,
        id: OpId,
        lane: Lane,
        bytes: &[u8],
        immediate: Option<Immediate>,
    ) -> Sent {
        if bytes.len() > hub.message_bytes_max() {
            return Sent::Streams(Posted::Refused(Reason::TooLong));
        }
        let number = self.outbox.next;
        let flying = self.outbox.flying.len() as u64;
        if flying == 0 {
            self.outbox.ahead = 0;
        } else if self.outbox.ahead > AHEAD_MAX {
            return Sent::Streams(Posted::Busy);
        }
        let message = [&head(number, immediate), bytes].concat();
        if hub.rails_carry_messages
            && number - self.outbox.taken < RAIL_MAX
            && flying < RAIL_MAX
            && let Some(path) = self.mail_path(hub, message.len())
        {
            let token =
                hub.launch(self.id, Load::Message(number), path, Lane::Latency, Batch::default());
            let path = &mut self.paths[usize::from(path)];
            path.messages += 1;
            let channel = path.up().expect("it was chosen among those that are up");
            hub.rails[usize::from(path.rail)].device.send(channel, token, &message);
            self.outbox.flying.insert(number, message);
            self.outbox.next += 1;
            return Sent::Rail;
        }
        let work = Work::Send { bytes: &message, immediate: None };
        let posted = hub.control.streams().post(id, self.id, lane, work);
        if posted == Posted::Done {
            self.outbox.next += 1;
            self.outbox.ahead += message.len() + WEIGHT;
        }
        Sent::Streams(posted)
    }

    /// The path that a message of this length can take.
    fn mail_path(&self, hub: &Hub, len: usize) -> Option<u8> {
        let fits = |path: &super::path::Path| {
            let rail = &hub.rails[usize::from(path.rail)];
            let room = |channel| rail.device.room(channel, Lane::Latency);
            let free = |room: Room| room.pieces > 0 && room.immediates > 0;
            rail.traits.message_bytes_max >= len && path.up().is_some_and(|it| free(room(it)))
        };
        self.paths.iter().position(fits).map(|path| path as u8)
    }

    /// A message is there.
    pub(super) fn message_done(&mut self, number: u64) {
        self.outbox.flying.remove(&number);
    }

    /// The rail that had a message failed.
    pub(super) fn message_again(&mut self, number: u64) {
        self.outbox.again.push_back(number);
    }

    /// The peer has taken so many messages.
    pub(super) fn messages_taken(&mut self, count: u64) {
        // Whatever it says, it has not taken what it was not sent.
        self.outbox.taken = self.outbox.taken.max(count.min(self.outbox.next));
    }

    /// Sends messages again whose rail has failed; whether some are left.
    pub(super) fn send_again(&mut self, hub: &mut Hub) -> bool {
        while let Some(number) = self.outbox.again.front() {
            if let Some(bytes) = self.outbox.flying.get(number) {
                let work = Work::Send { bytes, immediate: None };
                let posted = hub.control.streams().post(OpId(0), self.id, Lane::Latency, work);
                if posted == Posted::Busy {
                    return true;
                }
                // Refused is what goes to a peer that is gone: its end is reported.
                self.outbox.flying.remove(number);
            }
            self.outbox.again.pop_front();
        }
        false
    }

    /// The rails are about to be taken down: what may not have arrived over them goes through the
    /// streams, before these are closed as well.
    pub(super) fn send_rest(&mut self, hub: &mut Hub) {
        self.outbox.again = self.outbox.flying.keys().copied().collect();
        if self.send_again(hub) {
            let left = self.outbox.again.len();
            tracing::warn!(engine = ?self.engine, left, "hung up on a peer with messages under way");
        }
    }

    /// Whether messages wait for room in the streams.
    pub(super) fn has_mail(&self) -> bool {
        !self.outbox.again.is_empty()
    }
}

/// What came from all peers, also from such that are gone.
#[derive(Debug, Default)]
pub(super) struct Mail {
    inboxes: HashMap<PeerId, Inbox>,
    /// Peers with messages whose turn it is; the first is served next.
    full: VecDeque<PeerId>,
    /// Messages whose turn it is.
    pub(super) ready: usize,
}

impl Mail {
    /// Takes in a message; whether it makes sense.
    fn take_in(&mut self, peer: PeerId, by: By, bytes: Vec<u8>) -> bool {
        let inbox = self.inboxes.entry(peer).or_default();
        if inbox.unwelcome {
            return true;
        }
        let before = inbox.ready.len();
        let makes_sense = inbox.take_in(by, bytes);
        inbox.unwelcome = !makes_sense;
        self.ready += inbox.ready.len() - before;
        if before == 0 && !inbox.ready.is_empty() {
            self.full.push_back(peer);
        }
        makes_sense
    }

    /// The next message, the peers in turns.
    fn next(&mut self) -> Option<(PeerId, Letter, &mut Inbox)> {
        let peer = self.full.pop_front()?;
        let inbox = self.inboxes.get_mut(&peer)?;
        let letter = inbox.ready.pop_front()?;
        self.ready -= 1;
        inbox.taken += 1;
        if !inbox.ready.is_empty() {
            self.full.push_back(peer);
        }
        Some((peer, letter, inbox))
    }
}

impl Rdma {
    /// A message came from a peer, over a rail or through the streams.
    pub(super) fn message(&mut self, peer: PeerId, by: By, bytes: Vec<u8>) {
        if !self.mail.take_in(peer, by, bytes) {
            tracing::warn!(
                peer = peer.0,
                "hanging up on a peer: a message without a head, or more of them than it may send"
            );
            self.unwelcome.push(peer);
        }
    }

    /// A connection has ended: that is reported behind its last message.
    pub(super) fn down(&mut self, peer: PeerId, event: Event) {
        match self.mail.inboxes.get_mut(&peer) {
            Some(inbox) if !inbox.ready.is_empty() => inbox.down = Some(event),
            _ => {
                self.mail.inboxes.remove(&peer);
                self.hub.reports.push(event);
            }
        }
    }

    /// Hands messages over, at most `max`; whether there were any.
    pub(super) fn deliver(&mut self, max: usize) -> bool {
        let reports = &mut self.hub.reports;
        for left in (0..max).rev() {
            let Some((peer, letter, inbox)) = self.mail.next() else { return left + 1 < max };
            reports.push(Event::Message { peer, bytes: letter.bytes });
            reports.extend(letter.immediate.map(|immediate| Event::Arrived { immediate }));
            let over = inbox.down.take_if(|_| inbox.ready.is_empty());
            if inbox.taken - inbox.told >= TOLD_EVERY && self.hub.rails_carry_messages {
                inbox.told = inbox.taken;
                let word = Word::Taken { count: inbox.taken };
                self.hub.control.tell(peer, &word.encode());
            }
            if let Some(over) = over {
                reports.push(over);
                self.mail.inboxes.remove(&peer);
            }
        }
        max > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Vec<u8> {
        [&head(number, None)[..], &number.to_le_bytes()].concat()
    }

    #[test]
    fn numbers_restore_the_order_and_each_message_counts_once() {
        let mut inbox = Inbox::default();
        for number in [1, 0, 0, 3, 1, 2, 3] {
            assert!(inbox.take_in(By::Rail, message(number)));
        }
        let got: Vec<_> = inbox.ready.drain(..).map(|letter| letter.bytes).collect();
        assert_eq!(got, [0u64, 1, 2, 3].map(|number| number.to_le_bytes().to_vec()));
        assert!(inbox.early.is_empty());
    }

    #[test]
    fn peers_are_served_in_turns() {
        let mut mail = Mail::default();
        for number in 0..3 {
            assert!(mail.take_in(PeerId(1), By::Streams, message(number)));
        }
        assert!(mail.take_in(PeerId(2), By::Streams, message(0)));
        let served: Vec<_> = std::iter::from_fn(|| Some(mail.next()?.0.0)).collect();
        assert_eq!(served, [1, 2, 1, 1]);
        assert_eq!((mail.ready, mail.full.len()), (0, 0));
    }

    #[test]
    fn nobody_makes_us_keep_more_than_some_messages() {
        let mut inbox = Inbox::default();
        assert!(!inbox.take_in(By::Streams, vec![0; HEAD_BYTES - 1]), "no head");
        assert!(!inbox.take_in(By::Streams, vec![1; HEAD_BYTES]), "a head of another kind");
        // Over a rail, in their order, and nobody takes them.
        assert!((0..RAIL_MAX).all(|number| inbox.take_in(By::Rail, message(number))));
        assert!(!inbox.take_in(By::Rail, message(RAIL_MAX)));
        // Through the streams, behind one that never comes.
        let long = |number: u64| [&head(number, None)[..], &[0; 60_000]].concat();
        let mut inbox = Inbox::default();
        let kept = (1..1000).take_while(|number| inbox.take_in(By::Streams, long(*number)));
        assert!((60..=80).contains(&kept.count()));
        assert!(inbox.take_in(By::Streams, long(1)) || inbox.weight > EARLY_MAX);
    }

    #[test]
    fn an_immediate_goes_with_its_message() {
        for immediate in [None, Some(Immediate(0)), Some(Immediate(u32::MAX))] {
            let (number, letter) = open(head(7, immediate).to_vec()).unwrap();
            assert_eq!((number, letter.immediate), (7, immediate));
            assert!(letter.bytes.is_empty());
        }
    }
}
