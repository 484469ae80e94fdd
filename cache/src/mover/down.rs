//! Demotions, and blocks that shall survive a crash.

use std::collections::{HashMap, HashSet, VecDeque};

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
    /// Blocks whose stores have not ended.
    storing: HashSet<Key>,
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
        let levels = self.stack.levels();
        let level = levels.iter().find(|level| level.is_open()).or(levels.first())?;
        let tier = level.cold.tier();
        self.down.tickets += 1;
        let ticket = self.down.tickets;
        let storing: HashSet<Key> = scope.persist(keys, tier).into_iter().collect();
        let (scope, keys, idle) = (scope.clone(), keys.to_vec(), storing.is_empty());
        let persisting = Persisting { tier, scope, keys, storing };
        self.down.persisting.insert(ticket, persisting);
        self.send_down(now);
        if idle {
            self.sync(ticket);
        }
        Some(ticket)
    }

    /// Forgets somebody who waits for blocks to be safe; the blocks go on.
    pub fn give_up(&mut self, ticket: u64) {
        self.down.persisting.remove(&ticket);
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
            while let Some(token) = self.down.refused.get_mut(&tier).and_then(VecDeque::pop_front) {
                if !self.try_down(token) {
                    self.down.refused.entry(tier).or_default().push_front(token);
                    break;
                }
            }
        }
        while let Some(token) = self.down.unsynced.pop_front() {
            if !self.try_sync(token) {
                self.down.unsynced.push_front(token);
                break;
            }
        }
        any
    }

    /// Hands a store to its tier, behind those that wait for room there.
    fn put_down(&mut self, token: u64) {
        let Some(storing) = self.down.storing.get(&token) else { return };
        let tier = storing.carried.to();
        let crowded = self.down.refused.get(&tier).is_some_and(|waiting| !waiting.is_empty());
        if crowded || !self.try_down(token) {
            self.down.refused.entry(tier).or_default().push_back(token);
        }
    }

    /// Hands a store to its tier; false when that has no room now.
    fn try_down(&mut self, token: u64) -> bool {
        let Some(Storing { carried, record }) = self.down.storing.get(&token) else { return true };
        let wanted = carried.is_wanted();
        let Some(level) = self.stack.level(carried.to()).filter(|_| wanted) else {
            self.ways.remove(&token);
            self.went_down(token, &Err(Failure::Gone));
            return true;
        };
        // Whoever waits until it is safe asks for a sync once it is there.
        let store = Job::Store { token, record: *record, from: carried.span(), durable: false };
        match submit(level, store) {
            Submitted::Taken => true,
            Submitted::Full => false,
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.went_down(token, &Err(failure));
                true
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
        let tier = carried.to();
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
        let name = record.name();
        let mut safe = Vec::new();
        for (ticket, persisting) in &mut self.down.persisting {
            if persisting.tier == tier
                && persisting.scope.id() == name.identity
                && persisting.storing.remove(&name.key)
                && persisting.storing.is_empty()
            {
                safe.push(*ticket);
            }
        }
        safe.into_iter().for_each(|ticket| self.sync(ticket));
    }

    /// All that somebody waits for is written; what was there before it may not be safe yet.
    fn sync(&mut self, ticket: u64) {
        let token = self.token(Way::Down);
        self.down.syncs.insert(token, ticket);
        if !self.down.unsynced.is_empty() || !self.try_sync(token) {
            self.down.unsynced.push_back(token);
        }
    }

    /// Hands a sync to its tier; false when that has no room now.
    fn try_sync(&mut self, token: u64) -> bool {
        let ticket = self.down.syncs.get(&token);
        let tier = ticket.and_then(|ticket| Some(self.down.persisting.get(ticket)?.tier));
        let Some(level) = tier.and_then(|tier| self.stack.level(tier)) else {
            // Nobody waits for it any more.
            self.down.syncs.remove(&token);
            self.ways.remove(&token);
            return true;
        };
        match submit(level, Job::Sync { token }) {
            Submitted::Taken => true,
            Submitted::Full => false,
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.went_down(token, &Err(failure));
                true
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
