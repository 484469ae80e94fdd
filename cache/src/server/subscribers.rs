//! Clients that want to hear of every change.

use tranship_transport::Peer;

use super::Server;
use crate::events::{Change, Cursor, Event};
use crate::store::{Store, TenantId};
use crate::wire::{self, Reply};

/// Events in one message, on a fabric whose messages are long enough.
const BATCH_MAX: usize = 255;
/// Bytes of the longest event on the wire, rounded up.
const EVENT_BYTES: usize = 64;

struct Subscriber {
    peer: Peer,
    request: u32,
    tenant: TenantId,
    cursor: Cursor,
}

/// Who listens. Each has a cursor of its own, so that a slow one is told its gap and delays nobody.
pub(super) struct Subscribers {
    all: Vec<Subscriber>,
    /// Where the events end, as far as all have read.
    seen: u64,
}

impl Subscribers {
    pub(super) fn new(store: &Store) -> Self {
        Self { all: Vec::new(), seen: store.subscribe().next_sequence() }
    }

    /// Takes a subscriber in, replacing an earlier subscription of the same client.
    pub(super) fn add(
        &mut self,
        peer: Peer,
        request: u32,
        tenant: TenantId,
        from: u64,
        store: &Store,
    ) {
        self.remove(peer);
        let cursor = match from {
            u64::MAX => store.subscribe(),
            from => Cursor::from_sequence(from),
        };
        self.seen = self.seen.min(cursor.next_sequence());
        self.all.push(Subscriber { peer, request, tenant, cursor });
    }

    pub(super) fn remove(&mut self, peer: Peer) {
        self.all.retain(|subscriber| subscriber.peer != peer);
    }
}

impl Server {
    /// Sends what happened since the last time; whether there was anything.
    pub(super) fn publish(&mut self) -> bool {
        if self.subscribers.all.is_empty() {
            return false;
        }
        let end = self.store.subscribe().next_sequence();
        if end == self.subscribers.seen {
            return false;
        }
        // One place is kept for the word of a gap.
        let room = self.engine.message_bytes_max() / EVENT_BYTES;
        let batch = room.saturating_sub(2).clamp(1, BATCH_MAX);
        let mut replies = Vec::new();
        let mut behind = false;
        for subscriber in &mut self.subscribers.all {
            let mut events = Vec::new();
            let gap = self.store.events(&mut subscriber.cursor, batch, &mut events);
            behind |= subscriber.cursor.next_sequence() < end;
            let gap = gap.map(|gap| wire::Event::Gap { from: gap.from, to: gap.to });
            let theirs = events.iter().filter(|event| event.tenant == subscriber.tenant);
            let told: Vec<_> = gap.into_iter().chain(theirs.map(tell)).collect();
            if !told.is_empty() {
                replies.push((subscriber.peer, subscriber.request, Reply::Events(told)));
            }
        }
        self.subscribers.seen = if behind { 0 } else { end };
        for (peer, request, reply) in replies {
            self.reply(peer, request, &reply);
        }
        true
    }
}

fn tell(event: &Event) -> wire::Event {
    let sequence = event.sequence;
    let identity = *event.identity.as_bytes();
    match event.change {
        Change::Stored { link, len, tier } => wire::Event::Stored {
            sequence,
            identity,
            key: link.key,
            parent: link.parent,
            position: link.position,
            len,
            tier: tier as u8,
        },
        Change::Removed { key, tier, .. } => {
            wire::Event::Removed { sequence, identity, key, tier: tier as u8 }
        }
        Change::Cleared => wire::Event::Cleared { sequence, identity },
    }
}
