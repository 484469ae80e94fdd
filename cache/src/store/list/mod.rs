//! Listing a tenant's blocks, tier by tier and a bounded piece at a time.
//!
//! What each tier has is listed as it is there, so a block has one entry for each tier that has it. A
//! block that stays in a tier throughout is on exactly one page of that tier, whatever comes and goes
//! in the others meanwhile; no order over all tiers would be as steady, because blocks move.

#[cfg(test)]
mod tests;

use crate::block::Info;
use crate::identity::IdentityId;
use crate::key::{KEY_BYTES, Key};
use crate::limits::SCAN_BLOCKS;
use crate::store::{Scope, Tenant};
use crate::tier::cold::{Found, Name};
use crate::tier::{Level, Tier, Tiers};
use crate::time::{Millis, Wall};

/// Before every identity and key, which are hashes.
const FIRST: [u8; KEY_BYTES] = [0; KEY_BYTES];

/// Which keys to list: those whose hex digits start like this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The digits, one each; what is no digit equals none.
    digits: Vec<u8>,
}

impl Filter {
    /// Keys that start with these hex digits, in either case; all for an empty text.
    pub fn prefix(digits: &str) -> Self {
        let value = |digit: char| digit.to_digit(16).map_or(u8::MAX, |value| value as u8);
        Self { digits: digits.chars().map(value).collect() }
    }

    fn admits(&self, key: Key) -> bool {
        let bytes = key.as_bytes();
        self.digits.len() <= 2 * KEY_BYTES
            && self.digits.iter().enumerate().all(|(at, digit)| {
                let byte = bytes[at / 2];
                *digit == if at % 2 == 0 { byte >> 4 } else { byte & 0xf }
            })
    }

    /// The one key that passes, if no other can.
    fn only(&self) -> Option<Key> {
        let whole = self.digits.len() == 2 * KEY_BYTES && self.digits.iter().all(|d| *d < 16);
        let byte = |pair: &[u8]| pair[0] << 4 | pair[1];
        whole.then(|| Key::from_bytes(std::array::from_fn(|at| byte(&self.digits[2 * at..]))))
    }
}

/// What to list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What is in these tiers.
    pub tiers: Tiers,
    /// Blocks of this identity alone.
    pub identity: Option<IdentityId>,
    /// Which keys.
    pub keys: Filter,
}

/// Where a page starts. What it says is for [`Tenant::list`] alone, but for the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which tier; those before it have been listed.
    pub tier: Tier,
    /// In memory: identities before this one have been listed.
    pub identity: IdentityId,
    /// Below memory: of what a visit from `from` finds, names up to `identity` and this have been
    /// listed.
    pub key: Key,
    /// How far in, by the tier's own measure.
    pub from: u64,
}

impl Place {
    /// Before all blocks.
    pub const START: Self = Self::start(Tier::Dram);

    const fn start(tier: Tier) -> Self {
        let (identity, key) = (IdentityId::from_bytes(FIRST), Key::from_bytes(FIRST));
        Self { tier, identity, key, from: 0 }
    }
}

/// One block in one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identity it is of.
    pub identity: IdentityId,
    /// Where it is.
    pub tier: Tier,
    /// The block.
    pub key: Key,
    /// The block before it, where that is known: in memory alone.
    pub parent: Option<Key>,
    /// Blocks before it in its sequence; known in memory alone.
    pub position: Option<u32>,
    /// Bytes.
    pub len: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// Since it came to memory, milliseconds; known in memory alone.
    pub age_ms: Option<u64>,
    /// Until its time to live ends, milliseconds.
    pub expires_in_ms: Option<u64>,
    /// In memory: times it was leased. Below: loads, as far as the tier counts them.
    pub hits: u64,
    /// Leases on it now.
    pub leases: u32,
    /// It is pinned.
    pub pinned: bool,
}

impl Listed {
    fn in_memory(identity: IdentityId, info: &Info, now: Millis) -> Self {
        Self {
            identity,
            tier: Tier::Dram,
            key: info.view.key,
            parent: info.parent,
            position: Some(info.position),
            len: info.view.len,
            checksum: info.view.checksum,
            age_ms: Some((now - info.committed).0),
            expires_in_ms: info.expires.map(|at| (at - now).0),
            hits: info.hits,
            leases: info.leases,
            pinned: info.pinned,
        }
    }

    fn below(tier: Tier, name: &Name, found: &Found, wall: Wall) -> Self {
        Self {
            identity: name.identity,
            tier,
            key: name.key,
            parent: None,
            position: None,
            len: found.len,
            checksum: found.checksum,
            age_ms: None,
            expires_in_ms: found.expires.map(|at| at.since(wall).0),
            hits: found.mark.hits.into(),
            leases: 0,
            pinned: false,
        }
    }
}

/// Some blocks, in no particular order, which may be none although more follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where the next page starts; none after the last.
    pub next: Option<Place>,
    /// The blocks.
    pub blocks: Vec<Listed>,
}

/// How much one page may be.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Blocks on it, at least 1.
    pub blocks: usize,
    /// Places looked at for it, at least 1; exceeded by what is visited at once.
    pub visits: usize,
}

impl Tenant {
    /// Lists blocks of registered identities, from where an earlier page ended. `now` and `wall` are the
    /// same moment, on the store's clock and on the one that tiers below keep time by.
    pub fn list(
        &self,
        listing: &Listing,
        from: Place,
        limits: PageLimits,
        (now, wall): (Millis, Wall),
    ) -> Page {
        let mut scopes = self.scopes();
        scopes.retain(|scope| listing.identity.is_none_or(|id| scope.id() == id));
        // An order that stays when identities come and go between pages.
        scopes.sort_unstable_by_key(Scope::id);
        let (scopes, visits, blocks) = (&*scopes, 0, Vec::new());
        let mut page = Search { listing, scopes, at: from, limits, now, wall, visits, blocks };
        for tier in Tier::ALL.into_iter().filter(|tier| *tier >= from.tier) {
            if !listing.tiers.contains(tier) {
                continue;
            }
            if tier > page.at.tier {
                page.at = Place::start(tier);
            }
            let level = self.shard().stack().level(tier);
            let done = match (listing.keys.only(), tier, level) {
                (Some(key), ..) => page.one(key, level),
                (None, Tier::Dram, _) => page.memory(),
                (None, _, Some(level)) => page.below(level),
                (None, _, None) => true,
            };
            if !done {
                return Page { next: Some(page.at), blocks: page.blocks };
            }
        }
        Page { next: None, blocks: page.blocks }
    }
}

/// A page in the making.
struct Search<'a> {
    listing: &'a Listing,
    /// Of the identities that are listed, by their order.
    scopes: &'a [Scope],
    at: Place,
    limits: PageLimits,
    now: Millis,
    wall: Wall,
    visits: usize,
    blocks: Vec<Listed>,
}

/// Each lists what is left of a tier and says whether that is all; if not, `at` tells where to go on.
impl Search<'_> {
    fn is_full(&self) -> bool {
        self.blocks.len() >= self.limits.blocks || self.visits >= self.limits.visits
    }

    fn memory(&mut self) -> bool {
        for scope in self.scopes {
            if scope.id() < self.at.identity {
                continue;
            }
            if scope.id() > self.at.identity {
                self.at = Place { identity: scope.id(), ..Place::START };
            }
            loop {
                if self.is_full() {
                    return false;
                }
                let from = usize::try_from(self.at.from).unwrap_or(usize::MAX);
                let wanted = |key| self.listing.keys.admits(key);
                let room = self.limits.blocks - self.blocks.len();
                let (some, next) = scope.list_some(&wanted, from, room);
                self.visits += SCAN_BLOCKS;
                let listed = |info| Listed::in_memory(scope.id(), info, self.now);
                self.blocks.extend(some.iter().map(listed));
                match next {
                    Some(next) => self.at.from = next as u64,
                    None => break,
                }
            }
        }
        true
    }

    fn below(&mut self, level: &Level) -> bool {
        let tier = level.cold.tier();
        loop {
            if self.is_full() {
                return false;
            }
            let after = Name { identity: self.at.identity, key: self.at.key };
            let mine = |name: &Name| {
                self.scopes.binary_search_by_key(&name.identity, Scope::id).is_ok()
                    && self.listing.keys.admits(name.key)
            };
            let (mut seen, mut some) = (0, Vec::new());
            let next = level.cold.visit(self.at.from, &mut |name, found| {
                seen += 1;
                if *name > after && mine(name) {
                    some.push((*name, *found));
                }
            });
            self.visits += seen.max(1);
            // A visit may find more than fits. The next page makes it again, and goes on by name.
            some.sort_unstable_by_key(|(name, _)| *name);
            let room = self.limits.blocks - self.blocks.len();
            let more = some.len() > room;
            some.truncate(room);
            let listed =
                |(name, found): &(Name, Found)| Listed::below(tier, name, found, self.wall);
            self.blocks.extend(some.iter().map(listed));
            match (more, some.last(), next) {
                (true, Some((last, _)), _) => {
                    (self.at.identity, self.at.key) = (last.identity, last.key);
                }
                (_, _, Some(next)) => self.at = Place { from: next, ..Place::start(tier) },
                (_, _, None) => return true,
            }
        }
    }

    /// A tier (memory without a level) asked for one key under each identity.
    fn one(&mut self, key: Key, level: Option<&Level>) -> bool {
        for scope in self.scopes {
            if scope.id() < self.at.identity {
                continue;
            }
            if self.is_full() {
                self.at.identity = scope.id();
                return false;
            }
            self.visits += 1;
            self.blocks.extend(match (level, self.at.tier) {
                (None, Tier::Dram) => {
                    let info = scope.info(key);
                    info.map(|info| Listed::in_memory(scope.id(), &info, self.now))
                }
                (None, _) => None,
                (Some(level), tier) => {
                    let name = scope.name(key);
                    let found = level.cold.find(&name);
                    found.map(|found| Listed::below(tier, &name, &found, self.wall))
                }
            });
        }
        true
    }
}
