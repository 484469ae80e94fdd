//! Promotions.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::ops::Range;
use std::time::Duration;

use super::{Mover, SESSION, Submitted, Way, submit, warn};
use crate::block::{Reserved, Waiter, Woken};
use crate::catalog::Presence;
use crate::key::Key;
use crate::store::{Grant, Scope, Watch};
use crate::tier::cold::{Failure, Found, Job, Lane, Name, Record};
use crate::tier::{Tier, Tiers};
use crate::time::Millis;

/// How long a tier may take for one block, whoever waits for it meanwhile.
const LOAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a promotion may wait for room in memory.
const ROOM_WITHIN: Millis = Millis(5_000);
/// How long some bytes of a block stay in memory when the rest of it is not there.
const PART_TTL: Millis = Millis(60_000);
/// Promotions that may wait for room in memory; more are refused.
const WAITING_MAX: usize = 1 << 16;

/// What became of the wish to have a block in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is there.
    Resident,
    /// It is coming, and the waiter will be woken.
    Coming,
    /// No tier has it, or there is no way to bring it now.
    Absent,
}

/// What shall come up.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The block.
    pub(crate) key: Key,
    /// Which bytes of it, and the checksum of the whole; all of them without.
    pub(crate) range: Option<(Range<u64>, u64)>,
}

impl Piece {
    /// The key that it has in memory.
    pub(crate) fn key(&self) -> Key {
        let part = |(range, checksum): &(Range<u64>, u64)| self.key.part(range, *checksum);
        self.range.as_ref().map_or(self.key, part)
    }
}

/// A block that is being brought.
struct Loading {
    reserved: Reserved,
    name: Name,
    range: Option<Range<u64>>,
    found: Found,
    lane: Lane,
    from: Tier,
    /// Tiers that were asked, the present one included.
    tried: Tiers,
}

/// A block that cannot be brought yet: there is no room for it in memory.
struct Waiting {
    scope: Scope,
    piece: Piece,
    lane: Lane,
    deadline: Millis,
    waiters: Vec<Waiter>,
}

/// Blocks on their way up.
#[derive(Default)]
pub(super) struct Up {
    loading: HashMap<u64, Loading>,
    /// Loads that their tier had no room for.
    refused: VecDeque<u64>,
    waiting: VecDeque<Waiting>,
    /// How many of `waiting` wait for each block.
    names: HashMap<Name, usize>,
}

impl Up {
    pub(super) fn is_idle(&self) -> bool {
        self.loading.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }
}

impl Mover {
    /// Wants a block in memory. If it comes from a tier below, or somebody is filling it, `waiter` is
    /// woken when that ends.
    pub fn want(
        &mut self,
        scope: &Scope,
        key: Key,
        lane: Lane,
        waiter: Option<Waiter>,
        now: Millis,
    ) -> Wanted {
        self.want_piece(scope, &Piece { key, range: None }, lane, waiter, now)
    }

    /// [`want`](Self::want) of a block, or of some bytes of one that a tier below has.
    pub(crate) fn want_piece(
        &mut self,
        scope: &Scope,
        piece: &Piece,
        lane: Lane,
        waiter: Option<Waiter>,
        now: Millis,
    ) -> Wanted {
        let key = piece.key();
        match watch(scope, key, waiter) {
            Presence::Resident(Tier::Dram) => return Wanted::Resident,
            Presence::InFlight => return Wanted::Coming,
            Presence::Resident(_) => {}
            Presence::Absent if piece.range.is_some() => {}
            Presence::Absent => return Wanted::Absent,
        }
        let name = scope.name(key);
        if !self.up.names.contains_key(&name) {
            match self.start(scope, piece, lane, now) {
                Started::Yes if waiter.is_none() => return Wanted::Coming,
                Started::Yes => {
                    return match watch(scope, key, waiter) {
                        Presence::InFlight => Wanted::Coming,
                        Presence::Resident(Tier::Dram) => Wanted::Resident,
                        _ => Wanted::Absent,
                    };
                }
                // Only who waits for it makes it wait for room.
                Started::NoRoom if waiter.is_some() && self.up.waiting.len() < WAITING_MAX => {}
                Started::NoRoom | Started::Never => return Wanted::Absent,
            }
        }
        // Behind those that wait for room already, so that none is passed over.
        let (scope, piece, deadline) = (scope.clone(), piece.clone(), now + ROOM_WITHIN);
        let waiters = waiter.into_iter().collect();
        self.up.waiting.push_back(Waiting { scope, piece, lane, deadline, waiters });
        *self.up.names.entry(name).or_default() += 1;
        Wanted::Coming
    }

    /// Starts to bring a block that a tier below has.
    fn start(&mut self, scope: &Scope, piece: &Piece, lane: Lane, now: Millis) -> Started {
        let (key, range) = (piece.key, piece.range.clone().map(|(range, _)| range));
        let name = scope.name(key);
        let Some((level, found)) = self.stack.find(&name, Tiers::NONE) else {
            return Started::Never;
        };
        let from = level.cold.tier();
        let ttl = found.expires.map(|at| at.since((self.wall)()));
        let grant = match &range {
            None => scope.reserve_promotion(SESSION, (key, found.len), ttl, now),
            Some(range) if range.start <= range.end && range.end <= found.len => {
                let ttl = ttl.map_or(PART_TTL, |ttl| ttl.min(PART_TTL));
                scope.reserve_part(SESSION, (piece.key(), range.end - range.start), ttl, now)
            }
            Some(_) => return Started::Never,
        };
        let reserved = match grant {
            Grant::Granted(reserved) => reserved,
            Grant::Exists | Grant::InFlight => return Started::Yes,
            Grant::Refused(refusal) if refusal.why.is_room() => return Started::NoRoom,
            Grant::Refused(refusal) => {
                tracing::warn!(%key, %from, "a block cannot come up: {refusal}");
                return Started::Never;
            }
        };
        let mut tried = Tiers::NONE;
        tried.insert(from);
        let token = self.token(Way::Up);
        let loading = Loading { reserved, name, range, found, lane, from, tried };
        self.up.loading.insert(token, loading);
        self.load(token, now);
        Started::Yes
    }

    /// Asks the tier of a promotion for the bytes.
    fn load(&mut self, token: u64, now: Millis) {
        let Some(loading) = self.up.loading.get(&token) else { return };
        let job = Job::Load {
            token,
            name: loading.name,
            range: loading.range.clone().unwrap_or(0..loading.found.len),
            into: loading.reserved.span(),
            lane: loading.lane,
            within: LOAD_WITHIN,
        };
        let level = self.stack.level(loading.from).expect("the tier was found in the stack");
        match submit(level, job) {
            Submitted::Taken => {}
            Submitted::Full => self.up.refused.push_back(token),
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.came_up(token, Err(failure), now);
            }
        }
    }

    /// A tier has answered.
    pub(super) fn came_up(
        &mut self,
        token: u64,
        result: Result<Option<Record>, Failure>,
        now: Millis,
    ) {
        let Some(mut loading) = self.up.loading.remove(&token) else { return };
        let brought = result.and_then(|record| {
            record.ok_or_else(|| Failure::Io("a load was answered without a record".to_owned()))
        });
        match brought {
            Ok(record) => {
                let (key, reserved) = (loading.name.key, loading.reserved);
                let committed = match loading.range {
                    None => {
                        let ttl = record.expires.map(|at| at.since((self.wall)()));
                        reserved.commit_promoted(record.link, ttl, record.checksum, now)
                    }
                    Some(_) => {
                        let checksum = reserved.span().checksum();
                        reserved.commit_checked(checksum, now)
                    }
                };
                // One that was taken back meanwhile is free again, and whoever waited was told.
                if let Err(error) = committed {
                    tracing::debug!(%key, "came up for nothing: {error}");
                }
            }
            Err(failure) => {
                warn(loading.from, "a block cannot be brought", &failure);
                let next = self.stack.find(&loading.name, loading.tried);
                let same = next.filter(|(_, found)| found.len == loading.found.len);
                let Some((level, found)) = same else {
                    // A block whose pages a device cannot read would stand in the way of its own
                    // replacement for ever.
                    if let (Failure::Io(_), Tier::Nvme) = (&failure, loading.from)
                        && let Some(level) = self.stack.level(loading.from)
                    {
                        level.forget(Job::Remove { name: loading.name });
                    }
                    return;
                };
                loading.from = level.cold.tier();
                loading.tried.insert(loading.from);
                loading.found = found;
                let token = self.token(Way::Up);
                self.up.loading.insert(token, loading);
                self.load(token, now);
            }
        }
    }

    /// Tries again what found no room: loads in their tiers, promotions in memory.
    pub(super) fn lift(&mut self, now: Millis) {
        for _ in 0..self.up.refused.len() {
            let Some(token) = self.up.refused.pop_front() else { break };
            self.load(token, now);
        }
        while let Some(first) = self.up.waiting.front() {
            let (scope, piece, lane) = (first.scope.clone(), first.piece.clone(), first.lane);
            let key = piece.key();
            let started = self.start(&scope, &piece, lane, now);
            if matches!(started, Started::NoRoom) && first_deadline(&self.up) > now {
                break;
            }
            let Some(first) = self.up.waiting.pop_front() else { break };
            let name = scope.name(key);
            if let Entry::Occupied(mut count) = self.up.names.entry(name) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            for waiter in first.waiters {
                let presence = match started {
                    Started::Yes => watch(&scope, key, Some(waiter)),
                    Started::NoRoom | Started::Never => Presence::Absent,
                };
                if presence != Presence::InFlight {
                    let filled = presence == Presence::Resident(Tier::Dram);
                    self.store.wake([Woken { waiter, key, filled }]);
                }
            }
        }
    }
}

fn first_deadline(up: &Up) -> Millis {
    up.waiting.front().map_or(Millis::ZERO, |first| first.deadline)
}

/// Has `waiter` woken when the filling of `key` ends, if there is one; where the block is.
fn watch(scope: &Scope, key: Key, waiter: Option<Waiter>) -> Presence {
    let Some(waiter) = waiter else { return scope.presence(key) };
    match scope.watch(key, waiter) {
        Watch::Waiting => Presence::InFlight,
        Watch::Resident => Presence::Resident(Tier::Dram),
        Watch::Absent => scope.presence(key),
        // As many wait for it as may; this one finds what there is.
        Watch::Full => Presence::Absent,
    }
}

enum Started {
    /// It is on its way, or there.
    Yes,
    /// Memory has no room at the moment.
    NoRoom,
    /// It cannot come.
    Never,
}
