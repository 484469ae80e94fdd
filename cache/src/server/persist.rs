//! Clients that wait for blocks to be safe below memory, and wishes to have blocks above.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tranship_transport::{Peer, Time};

use super::Server;
use super::parked::WAIT_MAX;
use crate::key::Key;
use crate::mover::{Persisted, Wanted};
use crate::store::Scope;
use crate::tier::Lane;
use crate::wire::{Fault, FaultCode, Reply};

/// Requests that may wait at once; more are refused.
const WAITING_MAX: usize = 1024;

struct Waiting {
    peer: Peer,
    request: u32,
    blocks: usize,
    deadline: Time,
}

/// Requests that wait, by the mover's ticket.
#[derive(Default)]
pub(super) struct Persists {
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(Time, u64)>,
}

impl Persists {
    pub(super) fn next_deadline(&self) -> Time {
        self.deadlines.first().map_or(Time::NEVER, |(when, _)| *when)
    }

    fn take(&mut self, ticket: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        self.deadlines.remove(&(waiting.deadline, ticket));
        Some(waiting)
    }
}

impl Server {
    /// Has blocks brought to memory; returns how many are there or on their way.
    pub(super) fn prefetch(&mut self, scope: &Scope, keys: &[Key]) -> u64 {
        let now = self.now();
        let want =
            |key: &&Key| self.mover.want(scope, **key, Lane::Prefetch, None, now) != Wanted::Absent;
        keys.iter().filter(want).count() as u64
    }

    /// Has blocks made safe; the reply comes when they are.
    pub(super) fn persist(
        &mut self,
        peer: Peer,
        request: u32,
        scope: &Scope,
        keys: &[Key],
        wait_ms: u32,
    ) -> Result<Option<Reply>, Fault> {
        let fault = |code, text: String| Err(Fault { code, text });
        if self.persists.waiting.len() >= WAITING_MAX {
            let text =
                format!("{WAITING_MAX} requests wait for blocks to be safe; ask again later");
            return fault(FaultCode::Limit, text);
        }
        let Some(ticket) = self.mover.persist(scope, keys, self.now()) else {
            let text = "there is no tier below memory that survives a crash; configure nvme.path or \
                        object.url";
            return fault(FaultCode::Unknown, text.to_owned());
        };
        let wait = Duration::from_millis(u64::from(wait_ms)).min(WAIT_MAX);
        let deadline = self.engine.now() + wait;
        self.persists.deadlines.insert((deadline, ticket));
        let waiting = Waiting { peer, request, blocks: keys.len(), deadline };
        self.persists.waiting.insert(ticket, waiting);
        self.finish_persists();
        Ok(None)
    }

    /// Answers those whose blocks are safe, or cannot be.
    pub(super) fn finish_persists(&mut self) {
        for Persisted { ticket, safe } in self.mover.persisted() {
            if let Some(waiting) = self.persists.take(ticket) {
                self.reply(waiting.peer, waiting.request, &Reply::Persisted(safe));
            }
        }
    }

    /// Answers those whose patience ended: nothing is known to be safe. The blocks go on.
    pub(super) fn give_up_persists(&mut self) {
        if self.persists.deadlines.is_empty() {
            return;
        }
        let now = self.engine.now();
        while let Some(&(deadline, ticket)) = self.persists.deadlines.first()
            && deadline <= now
        {
            let Some(Waiting { peer, request, blocks, .. }) = self.persists.take(ticket) else {
                break;
            };
            self.mover.give_up(ticket);
            self.reply(peer, request, &Reply::Persisted(vec![false; blocks]));
        }
    }

    /// Forgets what a client that is gone waited for; its blocks go on.
    pub(super) fn forget_persists(&mut self, peer: Peer) {
        let of_peer =
            |(ticket, waiting): (&u64, &Waiting)| (waiting.peer == peer).then_some(*ticket);
        let tickets: Vec<u64> = self.persists.waiting.iter().filter_map(of_peer).collect();
        for ticket in tickets {
            self.persists.take(ticket);
            self.mover.give_up(ticket);
        }
    }
}
