//! What can be asked about the blocks of one identity.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tranship_transport::memory::Spans;
use tranship_transport::{Reason, Region};

use super::connection::{Client, Session};
use super::ends::Source;
use super::error::{Error, ReadError, StagingError};
use super::fill::{self, CommitFailed, Filled, Grant, PUT_BYTES_MAX, Stored};
use super::lease::Lease;
use super::subscription::Subscription;
use crate::catalog::Presence;
use crate::identity::{Identity, IdentityId};
use crate::key::Key;
use crate::lineage::Link;
use crate::tier::Tier;
use crate::wire::{self, Item, Lookup, Part, Reply, Request};

/// How long a lease stands unless told otherwise.
const LEASE_TTL: Duration = Duration::from_secs(30);
/// How long a reservation stands unless told otherwise.
const RESERVATION_DEADLINE_MS: u32 = 30_000;

/// The blocks of one identity, as one client sees them. A cheap handle.
#[derive(Clone)]
pub struct Cache {
    client: Client,
    identity: Arc<Identity>,
    id: IdentityId,
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Keys, from the first, that are resident without a break: these can be loaded.
    pub prefix: usize,
    /// What is known of each key.
    pub presence: Vec<Presence>,
}

impl Found {
    /// How many keys of the prefix each tier would serve ([`Tier::ALL`] gives the order).
    #[must_use]
    pub fn by_tier(&self) -> [usize; Tier::ALL.len()] {
        let mut tiers = [0; Tier::ALL.len()];
        for presence in &self.presence[..self.prefix] {
            if let Presence::Resident(tier) = presence {
                tiers[*tier as usize] += 1;
            }
        }
        tiers
    }
}

/// What a fetch has brought into a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// There, and checked: so many bytes.
    Ready {
        /// How long, bytes.
        len: u64,
    },
    /// Still being filled, or on its way up from a tier below, when the wait ended.
    Late,
    /// Not there.
    Gone,
    /// What arrived does not match the block's checksum: a miss. The daemon was told and drops it.
    Corrupt,
    /// It did not arrive: a miss.
    Failed(Reason),
}

/// What arrived is checked against this.
struct Check<'a> {
    session: &'a Session,
    scope: u32,
    into: &'a Region,
    arrived: bool,
}

impl Cache {
    pub(super) fn new(client: Client, identity: Identity) -> Self {
        let id = identity.id();
        Self { client, identity: Arc::new(identity), id }
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Finds the longest prefix of a chain that can be loaded now. Does not count as a use.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn lookup(&self, keys: &[Key]) -> Result<Found, Error> {
        let (session, scope) = self.enter()?;
        let mut found = Found { prefix: 0, presence: Vec::with_capacity(keys.len()) };
        for keys in keys.chunks(self.client.batches().keys) {
            let unbroken = found.prefix == found.presence.len();
            let request = Request::Lookup { scope, keys: keys.to_vec() };
            let Reply::Lookup(part) = self.client.call(&session, &request)? else {
                return Err(Error::Mismatched { request: "lookup" });
            };
            if part.presence.len() != keys.len() {
                return Err(Error::Mismatched { request: "lookup" });
            }
            if unbroken {
                found.prefix += part.prefix as usize;
            }
            found.presence.extend(part.presence.into_iter().map(presence));
        }
        Ok(found)
    }

    /// Keeps blocks in place for reading, for at most half a minute, waiting up to `wait` for those
    /// that are being filled or come up from a tier below. One result a block.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn lease(&self, keys: &[Key], wait: Duration) -> Result<Lease, Error> {
        self.lease_for(keys, wait, LEASE_TTL)
    }

    /// [`Cache::lease`] for at most `ttl`, of which the daemon grants up to ten minutes. A lease
    /// that is over is released, whoever still reads.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn lease_for(&self, keys: &[Key], wait: Duration, ttl: Duration) -> Result<Lease, Error> {
        let (session, scope) = self.enter()?;
        let mut lease = Lease::new(self.client.clone(), Arc::clone(&session), scope);
        let wait_ms = millis(wait);
        for keys in keys.chunks(self.client.batches().leases) {
            let request =
                Request::Lease { scope, wait_ms, ttl_ms: millis(ttl), keys: keys.to_vec() };
            let timeout = self.client.timeout() + wait;
            match self.client.call_within(&session, &request, timeout)? {
                Reply::Leased(blocks) if blocks.results.len() == keys.len() => {
                    lease.extend(keys, &blocks);
                }
                _ => return Err(Error::Mismatched { request: "lease" }),
            }
        }
        Ok(lease)
    }

    /// [`Cache::lease`] of some bytes of each block, such as some of its layers or heads: of a block that
    /// is not in memory, no more than those are brought from the tier that has it. The results, and
    /// what is copied or viewed, are of the parts.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses, as it does for a part that leaves its block.
    pub fn lease_parts(&self, parts: &[(Key, Range<u64>)], wait: Duration) -> Result<Lease, Error> {
        let (session, scope) = self.enter()?;
        let mut lease = Lease::new(self.client.clone(), Arc::clone(&session), scope);
        let (wait_ms, ttl_ms) = (millis(wait), millis(LEASE_TTL));
        for parts in parts.chunks(self.client.batches().leases) {
            let part = |(key, range): &(Key, Range<u64>)| Part {
                key: *key,
                start: range.start,
                end: range.end,
            };
            let keys: Vec<Key> = parts.iter().map(|(key, _)| *key).collect();
            let parts = parts.iter().map(part).collect();
            let request = Request::LeaseParts { scope, wait_ms, ttl_ms, parts };
            let timeout = self.client.timeout() + wait;
            match self.client.call_within(&session, &request, timeout)? {
                Reply::Leased(blocks) if blocks.results.len() == keys.len() => {
                    lease.extend(&keys, &blocks);
                }
                _ => return Err(Error::Mismatched { request: "lease_parts" }),
            }
        }
        Ok(lease)
    }

    /// Asks for room for blocks; one answer a block. What is granted is filled and committed, or
    /// given back by dropping it. The blocks of one chain come in order.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses the request as a whole.
    pub fn reserve(&self, blocks: &[(Link, u64)]) -> Result<Vec<Grant>, Error> {
        self.reserve_for(blocks, None)
    }

    /// [`Cache::reserve`] of blocks that live no longer than `ttl` once committed.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses the request as a whole.
    pub fn reserve_for(
        &self,
        blocks: &[(Link, u64)],
        ttl: Option<Duration>,
    ) -> Result<Vec<Grant>, Error> {
        let (session, scope) = self.enter()?;
        let ttl_ms = ttl.map_or(0, |ttl| u64::from(millis(ttl)).max(1));
        let mut grants = Vec::with_capacity(blocks.len());
        for blocks in blocks.chunks(self.client.batches().fills) {
            let items = blocks.iter().map(|(link, len)| Item { link: *link, len: *len }).collect();
            let deadline_ms = RESERVATION_DEADLINE_MS;
            let request = Request::Reserve { scope, deadline_ms, ttl_ms, items };
            match self.client.call(&session, &request)? {
                Reply::Reserved(answers) if answers.len() == blocks.len() => {
                    let grant = |(answer, (link, len)): (wire::Reserved, &(Link, u64))| {
                        Grant::new(&self.client, &session, *link, *len, answer)
                    };
                    grants.extend(answers.into_iter().zip(blocks).map(grant));
                }
                _ => return Err(Error::Mismatched { request: "reserve" }),
            }
        }
        Ok(grants)
    }

    /// Makes filled blocks readable; one result a block.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses the request as a whole.
    pub fn commit(&self, blocks: Vec<Filled>) -> Result<Vec<Result<(), CommitFailed>>, Error> {
        fill::commit(&self.client, blocks)
    }

    /// Stores blocks: reserves, copies, commits. One result a block, in order; a block that could
    /// not be stored says why and costs the others nothing.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses a request as a whole.
    pub fn store(&self, blocks: &[(Link, &[u8])]) -> Result<Vec<Stored>, Error> {
        self.store_from(blocks, None)
    }

    /// [`Cache::store`] of memory in several pieces; with a `ttl`, of blocks that live no longer once
    /// stored.
    ///
    /// # Errors
    /// As for [`Cache::store`].
    pub fn store_spans(
        &self,
        blocks: &[(Link, &Spans)],
        ttl: Option<Duration>,
    ) -> Result<Vec<Stored>, Error> {
        self.store_from(blocks, ttl)
    }

    fn store_from<S: Source>(
        &self,
        blocks: &[(Link, S)],
        ttl: Option<Duration>,
    ) -> Result<Vec<Stored>, Error> {
        let wanted: Vec<_> =
            blocks.iter().map(|(link, bytes)| (*link, bytes.len() as u64)).collect();
        let mut results = Vec::with_capacity(blocks.len());
        let mut wave = Wave::default();
        for (grant, (_, bytes)) in self.reserve_for(&wanted, ttl)?.into_iter().zip(blocks) {
            results.push(match grant {
                // Replaced by what the commit says.
                Grant::Granted(_) => Stored::Stored,
                Grant::Exists => Stored::Exists,
                Grant::InFlight => Stored::InFlight,
                Grant::Refused { ref why, retry_after } => {
                    Stored::Refused { why: why.clone(), retry_after }
                }
            });
            let Grant::Granted(room) = grant else { continue };
            // What is filled may have to leave staging memory before there is room for the next.
            if wave.bytes >= PUT_BYTES_MAX && !self.client.is_mapped()? {
                wave.commit(self, &mut results)?;
            }
            let full = |error| {
                matches!(error, ReadError::Staging { error: StagingError::Full { .. }, .. })
            };
            if !wave.filled.is_empty() && room.space().is_err_and(full) {
                wave.commit(self, &mut results)?;
            }
            let place = results.len() - 1;
            match room.fill(*bytes) {
                Ok(full) => wave.push(place, full, bytes.len()),
                Err(error) => results[place] = refused(&error),
            }
        }
        wave.commit(self, &mut results)?;
        Ok(results)
    }

    /// Has the daemon write blocks straight into memory of this client's engine, each at its own
    /// offset in `into`, waiting up to `wait` for those that are being filled or come up from a tier
    /// below. One result a block; what is `Ready` has been checked where it arrived, and nothing more
    /// lands in the region.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses, or no window into the region can be opened or
    /// closed again; the bytes in the region are not to be used then.
    pub fn fetch(
        &self,
        blocks: &[(Key, u64)],
        into: &Region,
        wait: Duration,
    ) -> Result<Vec<Fetched>, Error> {
        let (session, scope) = self.enter()?;
        let arrivals = self.client.engine().counter()?;
        let window = into.window(0..into.len())?;
        let timeout = self.client.timeout() + wait;
        let mut answers = Vec::with_capacity(blocks.len());
        for blocks in blocks.chunks(self.client.batches().fetches) {
            let fetch = wire::Fetch {
                wait_ms: millis(wait),
                window: window.descriptor(),
                slot: arrivals.slot(),
                blocks: blocks.to_vec(),
            };
            let request = Request::Fetch { scope, fetch };
            match self.client.call_within(&session, &request, timeout)? {
                Reply::Fetched(part) if part.len() == blocks.len() => answers.extend(part),
                _ => return Err(Error::Mismatched { request: "fetch" }),
            }
        }
        let written = answers.iter().filter(|a| matches!(a, wire::Fetched::Written { .. })).count();
        // The answers may overtake the payloads; the immediates may not.
        let arrived = arrivals.wait(written as u64, timeout).is_ok();
        window.revoke()?;
        let check = |(answer, (key, offset)): (wire::Fetched, &(Key, u64))| {
            let check = Check { session: &session, scope, into, arrived };
            self.checked(&check, answer, *key, *offset)
        };
        Ok(answers.into_iter().zip(blocks).map(check).collect())
    }

    /// Compares what arrived with what was sent.
    fn checked(&self, at: &Check<'_>, answer: wire::Fetched, key: Key, offset: u64) -> Fetched {
        let wire::Fetched::Written { len, checksum, generation } = answer else {
            return match answer {
                wire::Fetched::Late => Fetched::Late,
                wire::Fetched::Failed(code) => {
                    let reason = Reason::ALL.get(usize::from(code)).copied();
                    Fetched::Failed(reason.unwrap_or(Reason::Failed))
                }
                _ => Fetched::Gone,
            };
        };
        if !at.arrived {
            return Fetched::Failed(Reason::Deadline);
        }
        let found = match (usize::try_from(offset), usize::try_from(len)) {
            (Ok(offset), Ok(len)) => at.into.memory().checksum(offset, len).ok(),
            _ => None,
        };
        match found {
            Some(found) if found == checksum => Fetched::Ready { len },
            Some(_) => {
                let corrupt = Request::Corrupt { scope: at.scope, key, generation };
                self.client.tell(at.session, &corrupt);
                Fetched::Corrupt
            }
            None => Fetched::Failed(Reason::OutOfBounds),
        }
    }

    /// Keeps blocks from being evicted until they are unpinned; how many were pinned.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn pin(&self, keys: &[Key]) -> Result<u64, Error> {
        self.for_each(keys, |scope, keys| Request::Pin { scope, pin: true, keys })
    }

    /// Takes pins off; how many.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn unpin(&self, keys: &[Key]) -> Result<u64, Error> {
        self.for_each(keys, |scope, keys| Request::Pin { scope, pin: false, keys })
    }

    /// Has blocks of tiers below brought to memory, the first ones first, so that a later
    /// [`lease`](Self::lease) finds them there; how many are there or on their way. Does not wait, and
    /// does not count as a use.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn prefetch(&self, keys: &[Key]) -> Result<u64, Error> {
        self.for_each(keys, |scope, keys| Request::Prefetch { scope, keys })
    }

    /// Has blocks written to the fastest tier below memory, and waits up to `wait` (of which the daemon
    /// grants a minute, for each batch of a thousand keys) until they are safe there: they survive a crash of the daemon or the machine, until their room is needed for others,
    /// their time to live ends or they are removed. One flag a block, set for those that are safe.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses, as it does without a tier below memory.
    pub fn persist(&self, keys: &[Key], wait: Duration) -> Result<Vec<bool>, Error> {
        let (session, scope) = self.enter()?;
        let mut safe = Vec::with_capacity(keys.len());
        for keys in keys.chunks(self.client.batches().keys) {
            let request = Request::Persist { scope, wait_ms: millis(wait), keys: keys.to_vec() };
            let timeout = self.client.timeout() + wait;
            match self.client.call_within(&session, &request, timeout)? {
                Reply::Persisted(part) if part.len() == keys.len() => safe.extend(part),
                _ => return Err(Error::Mismatched { request: "persist" }),
            }
        }
        Ok(safe)
    }

    /// Removes blocks, pinned or not; how many.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn remove(&self, keys: &[Key]) -> Result<u64, Error> {
        self.for_each(keys, |scope, keys| Request::Remove { scope, keys })
    }

    /// Follows what happens to the tenant's blocks from event number `from` on; `None` for "from
    /// now". A subscriber that falls behind is told its gap.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn subscribe(&self, from: Option<u64>) -> Result<Subscription, Error> {
        Subscription::start(&self.client, from.unwrap_or(u64::MAX))
    }

    fn for_each(
        &self,
        keys: &[Key],
        request: impl Fn(u32, Vec<Key>) -> Request,
    ) -> Result<u64, Error> {
        let (session, scope) = self.enter()?;
        let mut sum = 0;
        for keys in keys.chunks(self.client.batches().keys) {
            let request = request(scope, keys.to_vec());
            match self.client.call(&session, &request)? {
                Reply::Count(count) => sum += count,
                _ => return Err(Error::Mismatched { request: request.name() }),
            }
        }
        Ok(sum)
    }

    /// The session, and this identity's number in it.
    fn enter(&self) -> Result<(Arc<Session>, u32), Error> {
        let session = self.client.session()?;
        let scope = self.client.scope(&session, self.id, &self.identity)?;
        Ok((session, scope))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} of {:?})", self.id, self.client)
    }
}

/// Blocks that were filled and wait to be committed together.
#[derive(Default)]
struct Wave {
    filled: Vec<Filled>,
    /// The place of each among all results.
    places: Vec<usize>,
    bytes: u64,
}

impl Wave {
    fn push(&mut self, place: usize, filled: Filled, bytes: usize) {
        self.filled.push(filled);
        self.places.push(place);
        self.bytes += bytes as u64;
    }

    fn commit(&mut self, cache: &Cache, results: &mut [Stored]) -> Result<(), Error> {
        let Self { filled, places, .. } = std::mem::take(self);
        for (place, committed) in places.into_iter().zip(cache.commit(filled)?) {
            if let Err(error) = committed {
                results[place] = refused(&error);
            }
        }
        Ok(())
    }
}

fn refused(error: &impl ToString) -> Stored {
    Stored::Refused { why: error.to_string(), retry_after: None }
}

fn presence(code: u8) -> Presence {
    match code {
        Lookup::ABSENT => Presence::Absent,
        Lookup::IN_FLIGHT => Presence::InFlight,
        tier => match Tier::ALL.get(usize::from(tier - Lookup::RESIDENT)) {
            Some(tier) => Presence::Resident(*tier),
            // A tier that only a newer daemon knows.
            None => Presence::Absent,
        },
    }
}

/// Whole milliseconds, at least one for any wait at all.
pub(super) fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(u32::from(!span.is_zero()))
}
