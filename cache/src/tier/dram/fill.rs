//! Reserving, filling and committing.

use super::{Block, Dram, Due, Filling, ScopeRef, State, TIER};
use crate::arena::footprint;
use crate::block::{Generation, Revocation, SessionId, Waiter};
use crate::catalog::{Presence, Slot};
use crate::error::{Refusal, Why};
use crate::events::Change;
use crate::key::Key;
use crate::limits::{BLOCK_BYTES_MAX, WAITERS_MAX};
use crate::lineage::Link;
use crate::policy::BlockId;
use crate::store::{Item, Watch};
use crate::tier::Tiers;
use crate::tier::cold::Name;
use crate::time::Millis;

/// The answer to one item of a reservation.
pub(crate) enum Begun {
    Granted { slot: Slot, generation: Generation, offset: u64 },
    Exists,
    InFlight,
    Refused(Refusal),
}

/// Where the bytes of a block come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client.
    Put,
    /// A tier below.
    Promotion,
    /// A tier below, of which only some bytes of a block are wanted.
    Part,
}

impl Dram {
    /// Reserves space for one block, evicting others if need be; `full` is the refusal that an
    /// earlier item of the request met.
    pub(crate) fn begin(
        &mut self,
        (session, source): (SessionId, Source),
        scope: &ScopeRef,
        item: &Item,
        deadline: Option<Millis>,
        full: Option<Refusal>,
        now: Millis,
    ) -> Begun {
        match self.try_begin((session, source), scope, item, deadline, full, now) {
            Ok(begun) => begun,
            Err(refusal) => {
                self.counters.refused += u64::from(source == Source::Put);
                Begun::Refused(refusal)
            }
        }
    }

    fn try_begin(
        &mut self,
        (session, source): (SessionId, Source),
        scope: &ScopeRef,
        item: &Item,
        deadline: Option<Millis>,
        full: Option<Refusal>,
        now: Millis,
    ) -> Result<Begun, Refusal> {
        let never = |why| Refusal { why, retry_after: None };
        let catalog = self.catalog(scope).ok_or_else(|| never(Why::Closed(scope.id)))?;
        match catalog.presence(item.link.key) {
            Presence::Resident(_) => {
                self.counters.existing += u64::from(source == Source::Put);
                return Ok(Begun::Exists);
            }
            Presence::InFlight => {
                self.counters.in_flight += u64::from(source == Source::Put);
                return Ok(Begun::InFlight);
            }
            Presence::Absent => {}
        }
        let name = Name { identity: scope.id, key: item.link.key };
        if source == Source::Put && self.stack.holder(&name).is_some() {
            self.counters.existing += 1;
            return Ok(Begun::Exists);
        }
        if self.draining && source == Source::Put {
            return Err(never(Why::Draining));
        }
        let max = BLOCK_BYTES_MAX.min(self.quota).min(self.extents.capacity_bytes());
        if item.len > max || footprint(item.len) > max {
            return Err(never(Why::TooLarge { len: item.len, max }));
        }
        if let Some(refusal) = full {
            return Err(refusal);
        }
        if source == Source::Put {
            self.adopt(scope, item.link)?;
        }
        let extent = match self.make_room((scope, source), item, now) {
            Ok(extent) => extent,
            Err(refusal) => {
                if source == Source::Put {
                    self.orphan(scope.index, item.link);
                }
                return Err(refusal);
            }
        };

        let generation = Generation(self.number());
        let offset = extent.offset();
        self.tally.filling.add(extent.bytes());
        let filling = Filling { session, source, deadline, waiters: Vec::new() };
        let slot = self.blocks.insert(Block {
            link: item.link,
            scope: scope.index,
            extent,
            len: item.len,
            checksum: 0,
            generation,
            state: State::Filling(filling),
            leases: 0,
            moves: Tiers::NONE,
            leaving: None,
            pinned: false,
            part: source == Source::Part,
            held: false,
            candidate: false,
            ttl: item.ttl,
            stored: 0,
            committed: now,
            hits: 0,
        }) as Slot;
        let catalog = &mut self.scopes[scope.index as usize].catalog;
        match source {
            Source::Put => catalog.fill(item.link, slot),
            Source::Promotion => catalog.fill_unplaced(item.link.key, slot),
            Source::Part => catalog.fill(item.link, slot),
        }
        self.holdings(session).fills.insert(slot);
        self.due(deadline, Due::Fill(slot));
        match source {
            Source::Put => self.counters.granted += 1,
            Source::Promotion | Source::Part => self.counters.promotions += 1,
        }
        Ok(Begun::Granted { slot, generation, offset })
    }

    /// Counts the block as a child, so that making room for it does not evict its own parent.
    fn adopt(&mut self, scope: &ScopeRef, link: Link) -> Result<(), Refusal> {
        match self.scopes[scope.index as usize].catalog.adopt(link) {
            Ok(Some(parent)) => self.weigh(parent),
            Ok(None) => {}
            Err(odd) => {
                let why = Why::Lineage { key: odd.key, known: odd.known, told: odd.told };
                return Err(Refusal { why, retry_after: None });
            }
        }
        Ok(())
    }

    /// Makes a filled block readable. Returns how many waiters were woken, or why the reservation
    /// is void; it then is to be [`abandon`](Self::abandon)ed like any other.
    pub(crate) fn finish(
        &mut self,
        slot: Slot,
        checksum: u64,
        now: Millis,
    ) -> Result<usize, Revocation> {
        let stored = self.number();
        let block = self.block_mut(slot);
        if let State::Revoked(why) = block.state {
            return Err(why);
        }
        block.stored = stored;
        block.checksum = checksum;
        block.committed = now;
        block.candidate = true;
        let (link, len, scope) = (block.link, block.len, block.scope);
        let (bytes, expires) = (block.extent.bytes(), block.expires());
        let State::Filling(filling) = std::mem::replace(&mut block.state, State::Resident) else {
            unreachable!("a reservation's block is filling or revoked");
        };

        self.close(slot, &filling);
        self.due(expires, Due::Block(slot));
        self.tally.filling.sub(bytes);
        self.tally.resident.add(bytes);
        match filling.source {
            Source::Put => {
                self.counters.committed += 1;
                self.counters.committed_bytes += len;
            }
            Source::Promotion | Source::Part => {
                self.counters.promoted += 1;
                self.counters.promoted_bytes += len;
            }
        }
        self.scopes[scope as usize].catalog.settle(link.key);
        let traits = self.traits(slot);
        self.policy.on_insert(BlockId(slot), &traits, now);
        self.weigh(slot);
        // Part of a block is nobody's business but of those who asked for it.
        if filling.source != Source::Part {
            self.tell(scope, Change::Stored { link, len, tier: TIER });
            self.write_through(slot);
        }
        Ok(self.wake(link.key, filling.waiters, true))
    }

    /// [`finish`](Self::finish) of a block that came up from a tier below: only now is its place in its
    /// chain known.
    pub(crate) fn finish_promotion(
        &mut self,
        slot: Slot,
        (link, ttl): (Link, Option<Millis>),
        checksum: u64,
        now: Millis,
    ) -> Result<usize, Revocation> {
        let block = self.block(slot);
        if let State::Revoked(why) = block.state {
            return Err(why);
        }
        let scope = block.scope as usize;
        let Ok(parent) = self.scopes[scope].catalog.place(link) else {
            return Err(Revocation::Lineage);
        };
        let block = self.block_mut(slot);
        (block.link, block.ttl) = (link, ttl);
        if let Some(parent) = parent {
            self.weigh(parent);
        }
        self.finish(slot, checksum, now)
    }

    /// Ends a reservation without a commit; its holder is gone, so the space is free.
    pub(crate) fn abandon(&mut self, slot: Slot) {
        if matches!(self.block(slot).state, State::Filling(_)) {
            self.withdraw(slot, Revocation::Deadline);
        }
        self.counters.abandoned += 1;
        let bytes = self.block(slot).extent.bytes();
        self.tally.revoking.sub(bytes);
        self.free(slot);
    }

    /// Takes a reservation back while its holder may still write: the key is free and waiters are
    /// woken, the space stays taken.
    pub(super) fn revoke(&mut self, slot: Slot, why: Revocation) {
        self.counters.revoked += 1;
        self.withdraw(slot, why);
    }

    fn withdraw(&mut self, slot: Slot, why: Revocation) {
        let block = self.block_mut(slot);
        let (link, scope, bytes) = (block.link, block.scope, block.extent.bytes());
        let State::Filling(filling) = std::mem::replace(&mut block.state, State::Revoked(why))
        else {
            unreachable!("only a filling block is withdrawn");
        };
        self.close(slot, &filling);
        self.tally.filling.sub(bytes);
        self.tally.revoking.add(bytes);
        self.scopes[scope as usize].catalog.unlink(link.key);
        self.orphan(scope, link);
        self.wake(link.key, filling.waiters, false);
    }

    fn close(&mut self, slot: Slot, filling: &Filling) {
        self.not_due(filling.deadline, Due::Fill(slot));
        self.holdings(filling.session).fills.remove(&slot);
        self.tidy(filling.session);
    }

    pub(crate) fn count_mismatch(&mut self) {
        self.counters.mismatched += 1;
    }

    /// Parks a waiter on a block that is in flight.
    pub(crate) fn watch(&mut self, scope: &ScopeRef, key: Key, waiter: Waiter) -> Watch {
        let Some(entry) = self.catalog(scope).and_then(|catalog| catalog.get(key)) else {
            return Watch::Absent;
        };
        match (entry.presence(), entry.slot()) {
            (Presence::Resident(_), _) => Watch::Resident,
            (Presence::InFlight, Some(slot)) => match &mut self.block_mut(slot).state {
                State::Filling(filling) if filling.waiters.len() < WAITERS_MAX => {
                    filling.waiters.push(waiter);
                    Watch::Waiting
                }
                _ => Watch::Full,
            },
            _ => Watch::Absent,
        }
    }

    /// Takes back all that a session has open and forgets its waiters. Returns how many
    /// reservations and leases it had.
    pub(crate) fn disconnect(&mut self, session: SessionId) -> (usize, usize) {
        let fills: Vec<Slot> = self
            .sessions
            .get(&session)
            .map_or_else(Vec::new, |h| h.fills.iter().copied().collect());
        for slot in &fills {
            self.revoke(*slot, Revocation::Disconnected);
        }
        for slot in self.sessions.values().flat_map(|held| &held.fills) {
            if let State::Filling(filling) = &mut self.blocks[*slot as usize].state {
                filling.waiters.retain(|waiter| waiter.session != session);
            }
        }
        let leases = self.lapse_session(session);
        (fills.len(), leases)
    }
}
