//! Requests that wait for blocks that are being filled, or come up from a tier below.
//!
//! Single flight: the first client to miss a block fills it; the others park here and are served
//! the moment it is committed, or told when their patience ends.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tranship_transport::{Peer, RemoteWindow, Slot, Time};

use super::{Server, parts};
use crate::block::{Lease, Outcome, Waiter};
use crate::key::Key;
use crate::mover::{Piece, Wanted};
use crate::store::Scope;
use crate::tier::Lane;
use crate::time::Millis;
use crate::wire::{Blocks, Leased, Part, Reply};

/// The longest anybody may wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a client wants with blocks.
pub(super) enum Wish {
    /// To have them kept in place.
    Lease { scope: Scope, ttl: Millis, keys: Vec<Key> },
    /// To have some bytes of each kept in place.
    Parts { scope: Scope, ttl: Millis, parts: Vec<Part> },
    /// To have them written into its window.
    Fetch { scope: Scope, window: RemoteWindow, slot: Slot, blocks: Vec<(Key, u64)> },
}

impl Wish {
    fn scope(&self) -> &Scope {
        match self {
            Self::Lease { scope, .. } | Self::Parts { scope, .. } | Self::Fetch { scope, .. } => {
                scope
            }
        }
    }

    /// What must be in memory for it.
    fn pieces(&self) -> Vec<Piece> {
        let whole = |key: &Key| Piece { key: *key, range: None };
        match self {
            Self::Lease { keys, .. } => keys.iter().map(whole).collect(),
            Self::Parts { scope, parts, .. } => parts::pieces(scope, parts),
            Self::Fetch { blocks, .. } => blocks.iter().map(|(key, _)| whole(key)).collect(),
        }
    }
}

struct Waiting {
    peer: Peer,
    request: u32,
    wish: Wish,
    /// Blocks still being filled.
    missing: usize,
    /// Keeps what is there already in place meanwhile, so that what comes up does not displace it.
    held: Vec<Lease>,
    deadline: Time,
}

/// All requests that wait.
#[derive(Default)]
pub(super) struct Parked {
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(Time, u64)>,
    next_token: u64,
}

impl Parked {
    pub(super) fn next_deadline(&self) -> Time {
        self.deadlines.first().map_or(Time::NEVER, |(when, _)| *when)
    }

    /// Forgets what a client that is gone waited for.
    pub(super) fn forget(&mut self, peer: Peer) {
        self.waiting.retain(|_, waiting| waiting.peer != peer);
        self.deadlines.retain(|(_, token)| self.waiting.contains_key(token));
    }

    fn take(&mut self, token: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&token)?;
        self.deadlines.remove(&(waiting.deadline, token));
        Some(waiting)
    }
}

impl Server {
    /// Grants a wish now, or parks it for blocks that are being filled or brought.
    pub(super) fn wish(
        &mut self,
        peer: Peer,
        request: u32,
        wish: Wish,
        wait_ms: u32,
    ) -> Option<Reply> {
        let mut pieces = wish.pieces();
        let keys: Vec<Key> = pieces.iter().map(Piece::key).collect();
        let absent = wish.scope().not_in_memory(&keys);
        if absent.is_empty() {
            return self.grant(peer, request, wish);
        }
        let absent: HashSet<Key> = absent.into_iter().collect();
        pieces.retain(|piece| absent.contains(&piece.key()));
        let session = self.session_id(peer);
        let token = self.parked.next_token;
        self.parked.next_token += 1;
        // Who does not wait gets what is there now; what is below comes up all the same, for the next.
        let waiter = Some(Waiter { session, token }).filter(|_| wait_ms > 0);
        let (scope, now) = (wish.scope().clone(), self.now());
        let held = vec![scope.hold(session, &keys, now)];
        let want = |piece| self.mover.want_piece(&scope, piece, Lane::Demand, waiter, now);
        let missing = pieces.iter().map(want).filter(|w| *w == Wanted::Coming).count();
        if missing == 0 || waiter.is_none() {
            return self.grant(peer, request, wish);
        }
        let wait = Duration::from_millis(u64::from(wait_ms)).min(WAIT_MAX);
        let deadline = self.engine.now() + wait;
        self.parked.deadlines.insert((deadline, token));
        let waiting = Waiting { peer, request, wish, missing, held, deadline };
        self.parked.waiting.insert(token, waiting);
        None
    }

    /// Goes on with requests whose blocks were filled or given up.
    pub(super) fn unpark_woken(&mut self) {
        let now = self.now();
        for woken in self.store.woken() {
            let token = woken.waiter.token;
            let Some(waiting) = self.parked.waiting.get_mut(&token) else { continue };
            waiting.missing = waiting.missing.saturating_sub(1);
            if woken.filled {
                let scope = waiting.wish.scope();
                waiting.held.push(scope.hold(woken.waiter.session, &[woken.key], now));
            }
            if waiting.missing == 0 {
                self.unpark(token);
            }
        }
    }

    /// Answers requests whose patience ended with what there is.
    pub(super) fn unpark_late(&mut self) {
        if self.parked.deadlines.is_empty() {
            return;
        }
        let now = self.engine.now();
        while let Some(&(deadline, token)) = self.parked.deadlines.first()
            && deadline <= now
        {
            self.unpark(token);
        }
    }

    fn unpark(&mut self, token: u64) {
        let Some(waiting) = self.parked.take(token) else { return };
        let Waiting { peer, request, wish, held: _held, .. } = waiting;
        if let Some(reply) = self.grant(peer, request, wish) {
            self.reply(peer, request, &reply);
        }
    }

    fn grant(&mut self, peer: Peer, request: u32, wish: Wish) -> Option<Reply> {
        match wish {
            Wish::Lease { scope, ttl, keys } => Some(self.lease(peer, &scope, ttl, &keys)),
            Wish::Parts { scope, ttl, parts } => Some(self.lease_parts(peer, &scope, ttl, &parts)),
            Wish::Fetch { scope, window, slot, blocks } => {
                self.fetch(peer, request, &scope, &window, slot, &blocks)
            }
        }
    }

    fn lease(&mut self, peer: Peer, scope: &Scope, ttl: Millis, keys: &[Key]) -> Reply {
        let lease = scope.lease(self.session_id(peer), keys, Some(ttl), self.now());
        let results = lease.results().iter().map(leased).collect();
        self.keep_lease(peer, lease, results)
    }

    /// Keeps what is ready for the client.
    pub(super) fn keep_lease(&mut self, peer: Peer, lease: Lease, results: Vec<Leased>) -> Reply {
        let ready = results.iter().any(|result| matches!(result, Leased::Ready { .. }));
        let id = if ready { lease.id().0 } else { 0 };
        if ready && let Some(session) = self.sessions.get_mut(&peer) {
            session.leases.insert(id, lease);
        }
        Reply::Leased(Blocks { lease: id, results })
    }
}

/// A result of a lease, as clients are told of it.
pub(super) fn leased(outcome: &Outcome) -> Leased {
    match *outcome {
        Outcome::Ready(view) => Leased::Ready {
            offset: view.offset,
            len: view.len,
            checksum: view.checksum,
            generation: view.generation.0,
        },
        Outcome::Late => Leased::Late,
        Outcome::Gone => Leased::Gone,
        Outcome::Corrupt => Leased::Corrupt,
    }
}
