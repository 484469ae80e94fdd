//! Clients that wait for blocks to be safe below memory, and wishes to have blocks above.

use std::collections::HashMap;
use std::time::Duration;

use tranship_transport::{Peer, Time};

use super::Server;
use crate::key::Key;
use crate::mover::{Persisted, Wanted};
use crate::store::Scope;
use crate::tier::Lane;
use crate::wire::{Fault, FaultCode, Reply};

/// The longest anybody may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct Waiting {
    peer: Peer,
    request: u32,
    blocks: usize,
    deadline: Time,
}

/// Requests by the mover's ticket.
#[derive(Default)]
pub(super) struct Persists(HashMap<u64, Waiting>);

impl Persists {
    pub(super) fn next_deadline(&self) -> Time {
        self.0.values().map(|waiting| waiting.deadline).min().unwrap_or(Time::NEVER)
    }

    /// Forgets what a client that is gone waited for; its blocks go on.
    pub(super) fn forget(&mut self, peer: Peer) {
        self.0.retain(|_, waiting| waiting.peer != peer);
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
        let Some(ticket) = self.mover.persist(scope, keys, self.now()) else {
            let text = "there is no tier below memory that survives a crash; configure nvme.path or \
                        object.url";
            return Err(Fault { code: FaultCode::Unknown, text: text.to_owned() });
        };
        let wait = Duration::from_millis(u64::from(wait_ms)).min(WAIT_MAX);
        let deadline = self.engine.now() + wait;
        self.persists.0.insert(ticket, Waiting { peer, request, blocks: keys.len(), deadline });
        self.finish_persists();
        Ok(None)
    }

    /// Answers those whose blocks are safe, or cannot be.
    pub(super) fn finish_persists(&mut self) {
        for Persisted { ticket, safe } in self.mover.persisted() {
            if let Some(waiting) = self.persists.0.remove(&ticket) {
                self.reply(waiting.peer, waiting.request, &Reply::Persisted(safe));
            }
        }
    }

    /// Answers those whose patience ended: nothing is known to be safe.
    pub(super) fn give_up_persists(&mut self) {
        if self.persists.0.is_empty() {
            return;
        }
        let now = self.engine.now();
        let late = self.persists.0.extract_if(|_, waiting| waiting.deadline <= now);
        for (_, waiting) in late.collect::<Vec<_>>() {
            self.reply(
                waiting.peer,
                waiting.request,
                &Reply::Persisted(vec![false; waiting.blocks]),
            );
        }
    }
}
