//! Promotions.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::{Mover, SESSION, Submitted, Way, submit, warn};
use crate::block::{Reserved, Waiter, Woken};
use crate::catalog::Presence;
use crate::key::Key;
use crate::limits::WAITERS_MAX;
use crate::store::{Grant, Scope, TenantId, Watch};
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
}

/// Blocks on their way up.
#[derive(Default)]
pub(super) struct Up {
    loading: HashMap<u64, Loading>,
    /// Loads that their tier had no room for, by tier.
    refused: HashMap<Tier, VecDeque<u64>>,
    /// What waits for room in memory: of each tenant, the first to come first.
    waiting: BTreeMap<TenantId, VecDeque<Waiting>>,
    /// Who waits for each of them.
    waiters: HashMap<Name, Vec<Waiter>>,
}

impl Up {
    pub(super) fn is_idle(&self) -> bool {
        self.loading.is_empty() && self.waiters.is_empty()
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
        // Behind those of the tenant that wait for room already, so that none is passed over.
        if self.up.waiting.contains_key(&scope.tenant()) {
            return self.wait(scope, piece, lane, waiter, now);
        }
        match self.start(scope, piece, lane, now) {
            Started::Yes if waiter.is_none() => Wanted::Coming,
            Started::Yes => match watch(scope, key, waiter) {
                Presence::InFlight => Wanted::Coming,
                Presence::Resident(Tier::Dram) => Wanted::Resident,
                _ => Wanted::Absent,
            },
            Started::NoRoom => self.wait(scope, piece, lane, waiter, now),
            Started::Never => Wanted::Absent,
        }
    }

    /// Has a block wait for room in memory, if somebody waits for it.
    fn wait(
        &mut self,
        scope: &Scope,
        piece: &Piece,
        lane: Lane,
        waiter: Option<Waiter>,
        now: Millis,
    ) -> Wanted {
        let blocks = self.up.waiters.len();
        match (self.up.waiters.entry(scope.name(piece.key())), waiter) {
            (Entry::Occupied(_), None) => Wanted::Coming,
            (Entry::Occupied(mut entry), Some(waiter)) if entry.get().len() < WAITERS_MAX => {
                entry.get_mut().push(waiter);
                Wanted::Coming
            }
            (Entry::Vacant(entry), Some(waiter)) if blocks < WAITING_MAX => {
                entry.insert(vec![waiter]);
                let (scope, piece, deadline) = (scope.clone(), piece.clone(), now + ROOM_WITHIN);
                let queue = self.up.waiting.entry(scope.tenant()).or_default();
                queue.push_back(Waiting { scope, piece, lane, deadline });
                Wanted::Coming
            }
            _ => Wanted::Absent,
        }
    }

    /// Starts to bring a block that a tier below has.
    fn start(&mut self, scope: &Scope, piece: &Piece, lane: Lane, now: Millis) -> Started {
        let key = piece.key;
        let name = scope.name(key);
        let Some((level, found)) = self.stack.find(&name, Tiers::NONE) else {
            return Started::Never;
        };
        let from = level.cold.tier();
        let ttl = found.expires.map(|at| at.since((self.wall)()));
        let grant = match &piece.range {
            None => scope.reserve_promotion(SESSION, (key, found.len), ttl, now),
            Some((range, checksum)) if range.end <= found.len && *checksum == found.checksum => {
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
        let range = piece.range.as_ref().map(|(range, _)| range.clone());
        let token = self.token(Way::Up);
        let loading = Loading { reserved, name, range, found, lane, from, tried };
        self.up.loading.insert(token, loading);
        self.load(token, now);
        Started::Yes
    }

    /// Asks the tier of a promotion for the bytes, behind those that wait for room there.
    fn load(&mut self, token: u64, now: Millis) {
        let Some(tier) = self.up.loading.get(&token).map(|loading| loading.from) else { return };
        let crowded = self.up.refused.get(&tier).is_some_and(|waiting| !waiting.is_empty());
        if crowded || !self.try_load(token, now) {
            self.up.refused.entry(tier).or_default().push_back(token);
        }
    }

    /// Asks the tier of a promotion for the bytes; false when it has no room now.
    fn try_load(&mut self, token: u64, now: Millis) -> bool {
        let Some(loading) = self.up.loading.get(&token) else { return true };
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
            Submitted::Taken => true,
            Submitted::Full => false,
            Submitted::Failed(failure) => {
                self.ways.remove(&token);
                self.came_up(token, Err(failure), now);
                true
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
                    // Another version was stored meanwhile; the part is one of what was asked for.
                    Some(_) if record.checksum != loading.found.checksum => return,
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
                // Room was made for those bytes; what another tier has under the name may be others.
                let before = (loading.found.len, loading.found.checksum);
                let same = next.filter(|(_, found)| (found.len, found.checksum) == before);
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
        for tier in Tier::ALL {
            while let Some(token) = self.up.refused.get_mut(&tier).and_then(VecDeque::pop_front) {
                if !self.try_load(token, now) {
                    self.up.refused.entry(tier).or_default().push_front(token);
                    break;
                }
            }
        }
        let tenants: Vec<TenantId> = self.up.waiting.keys().copied().collect();
        for tenant in tenants {
            self.lift_tenant(tenant, now);
        }
    }

    /// Starts what waits for room, until there is none.
    fn lift_tenant(&mut self, tenant: TenantId, now: Millis) {
        while let Some(Waiting { scope, piece, lane, deadline }) =
            self.up.waiting.get_mut(&tenant).and_then(VecDeque::pop_front)
        {
            let started = self.start(&scope, &piece, lane, now);
            if matches!(started, Started::NoRoom) && deadline > now {
                let queue = self.up.waiting.entry(tenant).or_default();
                queue.push_front(Waiting { scope, piece, lane, deadline });
                return;
            }
            let key = piece.key();
            for waiter in self.up.waiters.remove(&scope.name(key)).unwrap_or_default() {
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
        self.up.waiting.remove(&tenant);
    }
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
