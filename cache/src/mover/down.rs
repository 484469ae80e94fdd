//! Demotions, and blocks that shall survive a crash.

use std::collections::{HashMap, VecDeque};

use super::{Mover, Submitted, Way, submit, warn};

use crate::key::Key;
use crate::store::{Move, Scope};
use crate::tier::Tier;
use crate::tier::cold::{Failure, Job, Record};
use crate::time::Millis;

/// What was asked to survive a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// Given by [`Mover::persist`].
    pub ticket: u64,
    /// For each key, whether it is below memory for good.
    pub safe: Vec<bool>,
}

struct Storing {
    carried: Move,
    record: Record,
}

/// Somebody who waits for blocks to be safe.
struct Persisting {
    tier: Tier,
    scope: Scope,
    keys: Vec<Key>,
    /// Stores that have not ended.
    storing: usize,
}

/// Blocks on their way down.
#[derive(Default)]
pub(super) struct Down {
    storing: HashMap<u64, Storing>,
    /// Stores that their tier had no room for, by tier.
    refused: HashMap<Tier, VecDeque<u64>>,
    persisting: HashMap<u64, Persisting>,
    /// Tickets of jobs that end a [`Persisting`].
    syncs: HashMap<u64, u64>,
    /// Syncs that their tier had no room for: tokens.
    unsynced: VecDeque<u64>,
    tickets: u64,
    persisted: Vec<Persisted>,
}

impl Down {
    pub(super) fn is_idle(&self) -> bool {
        self.storing.is_empty() && self.persisting.is_empty()
    }
}

impl Mover {
    /// Has blocks of `scope` written to the fastest tier below memory for good; [`Mover::persisted`]
    /// tells when they are, by the ticket that this returns. None when there is no tier below.
    pub fn persist(&mut self, scope: &Scope, keys: &[Key], now: Millis) -> Option<u64> {
        let tier = self.stack.levels().first()?.cold.tier();
        self.down.tickets += 1;
        let ticket = self.down.tickets;
        let storing = scope.persist(keys, tier, ticket).iter().filter(|sent| **sent).count();
        let (scope, keys) = (scope.clone(), keys.to_vec());
        let persisting = Persisting { tier, scope, keys, storing };
        self.down.persisting.insert(ticket, persisting);
        self.send_down(now);
        if storing == 0 {
            self.sync(ticket);
        }
        Some(ticket)
    }

    /// Takes what became of [`Mover::persist`] since the last call.
    pub fn persisted(&mut self) -> Vec<Persisted> {
        std::mem::take(&mut self.down.persisted)
    }

    /// Hands what the store sends down to the tiers; whether there was anything.
    pub(super) fn send_down(&mut self, now: Millis) -> bool {
        let moves = self.store.moves();
        let any = !moves.is_empty();
        let wall = (self.wall)();
        for carried in moves {
            let record = carried.record(now, wall);
            let token = self.token(Way::Down);
            self.down.storing.insert(token, Storing { carried, record });
            self.put_down(token);
        }
        for tier in Tier::ALL {
            let waiting = self.down.refused.get_mut(&tier).map(std::mem::take).unwrap_or_default();
            for token in waiting {
                self.put_down(token);
            }
        }
        for token in std::mem::take(&mut self.down.unsynced) {
            self.submit_sync(token);
        }
        any
    }

    fn put_down(&mut self, token: u64) {
        let Some(Storing { carried, record }) = self.down.storing.get(&token) else { return };
        let tier = carried.to();
        let waiting = self.down.refused.entry(tier).or_default();
        if !waiting.is_empty() {
            waiting.push_back(token);
            return;
        }
        let wanted = carried.is_wanted();
        let Some(level) = self.stack.level(tier).filter(|_| wanted) else {
            self.ways.remove(&token);
            self.went_down(token, &Err(Failure::Gone));
            return;
        };
        let durable = carried.ticket().is_some();
        match submit(level, Job::Store { token, record: *record, from: carried.span(), durable }) {
            Submitted::Taken => {}
            Submitted::Full => waiting.push_back(token),
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.went_down(token, &Err(failure));
            }
        }
    }

    /// A tier has answered.
    pub(super) fn went_down(&mut self, token: u64, result: &Result<Option<Record>, Failure>) {
        if let Some(ticket) = self.down.syncs.remove(&token) {
            self.synced(ticket, result);
            return;
        }
        let Some(Storing { carried, record }) = self.down.storing.remove(&token) else { return };
        let (tier, ticket) = (carried.to(), carried.ticket());
        if let Err(failure) = result {
            warn(tier, "a block cannot be kept", failure);
        }
        let wanted = carried.arrived(result.is_ok());
        if result.is_ok()
            && !wanted
            && let Some(level) = self.stack.level(tier)
        {
            level.forget(Job::Remove { name: record.name() });
        }
        if let Some(ticket) = ticket
            && let Some(persisting) = self.down.persisting.get_mut(&ticket)
        {
            persisting.storing -= 1;
            if persisting.storing == 0 {
                self.sync(ticket);
            }
        }
    }

    /// All that somebody waits for is written; what was there before it may not be safe yet.
    fn sync(&mut self, ticket: u64) {
        let token = self.token(Way::Down);
        self.down.syncs.insert(token, ticket);
        self.submit_sync(token);
    }

    fn submit_sync(&mut self, token: u64) {
        let ticket = self.down.syncs.get(&token);
        let tier = ticket.and_then(|ticket| Some(self.down.persisting.get(ticket)?.tier));
        let Some(level) = tier.and_then(|tier| self.stack.level(tier)) else { return };
        match submit(level, Job::Sync { token }) {
            Submitted::Taken => {}
            Submitted::Full => self.down.unsynced.push_back(token),
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.went_down(token, &Err(failure));
            }
        }
    }

    fn synced(&mut self, ticket: u64, result: &Result<Option<Record>, Failure>) {
        let Some(persisting) = self.down.persisting.remove(&ticket) else { return };
        let Persisting { tier, scope, keys, .. } = persisting;
        if let Err(failure) = result {
            warn(tier, "blocks are not safe", failure);
        }
        let cold = self.stack.level(tier).map(|level| &level.cold);
        let there = |key: &Key| cold.is_some_and(|cold| cold.contains(&scope.name(*key)));
        let safe = keys.iter().map(|key| result.is_ok() && there(key)).collect();
        self.down.persisted.push(Persisted { ticket, safe });
    }
}
