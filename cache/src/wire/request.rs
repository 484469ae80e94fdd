//! What clients ask.

use tranship_transport::{Descriptor, Slot};

use super::codec::{Malformed, Reader, Writer};
use super::list::tiers;
use super::{BATCH_MAX, FILL_BATCH_MAX, HEADER_BYTES, Header, MAGIC, VERSION};
use crate::key::{KEY_BYTES, Key};
use crate::limits::IDENTITY_BYTES_MAX;
use crate::lineage::Link;
use crate::store::Place;
use crate::tier::Tiers;

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version the client speaks.
    pub version: u16,
    /// What the client calls itself, for logs.
    pub name: String,
    /// The tenant it works for.
    pub tenant: String,
    /// The tenant's token; empty for none.
    pub token: String,
}

/// Some bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The block.
    pub key: Key,
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// One block to make room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which block.
    pub link: Link,
    /// How long, bytes.
    pub len: u64,
}

/// Blocks to be written into a window of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// How long to wait for blocks that are being filled, milliseconds.
    pub wait_ms: u32,
    /// The caller's window.
    pub window: Descriptor,
    /// Counts one arrival a block.
    pub slot: Slot,
    /// Which blocks, and where in the window each goes, bytes.
    pub blocks: Vec<(Key, u64)>,
}

/// One reserved block of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The reservation.
    pub reservation: u64,
    /// CRC-64/NVMe of the bytes.
    pub checksum: u64,
    /// Where in the window they start, bytes.
    pub offset: u64,
}

/// Reserved blocks to be read out of a window of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// How long the reads may take, milliseconds.
    pub deadline_ms: u32,
    /// The caller's window; it may be read.
    pub window: Descriptor,
    /// Which blocks, and where in the window each is.
    pub blocks: Vec<Source>,
}

/// What a client asks; `scope` is an identity as the daemon numbered it for this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens the session.
    Hello(Hello),
    /// Registers an identity (its canonical encoding) and gets a scope for it.
    Identify {
        /// See [`Identity::encode`](crate::Identity::encode).
        identity: Vec<u8>,
    },
    /// Finds the longest unbroken prefix.
    Lookup {
        /// The identity.
        scope: u32,
        /// The chain, from its start.
        keys: Vec<Key>,
    },
    /// Asks for room.
    Reserve {
        /// The identity.
        scope: u32,
        /// How long the client may take to commit, milliseconds.
        deadline_ms: u32,
        /// How long the blocks may live once committed, milliseconds; 0 for no limit.
        ttl_ms: u64,
        /// The blocks.
        items: Vec<Item>,
    },
    /// Makes filled blocks readable: reservation and CRC-64/NVMe of each.
    Commit {
        /// Reservations and checksums.
        blocks: Vec<(u64, u64)>,
    },
    /// Has reserved blocks read out of the caller's memory, then makes them readable: what a
    /// client does that cannot write to the arena itself.
    Put(Put),
    /// Gives reservations back unfilled.
    Abort {
        /// The reservations.
        reservations: Vec<u64>,
    },
    /// Asks for blocks to be kept in place.
    Lease {
        /// The identity.
        scope: u32,
        /// How long to wait for blocks that are being filled, milliseconds.
        wait_ms: u32,
        /// How long the lease holds without a release, milliseconds.
        ttl_ms: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Ends leases.
    Release {
        /// The leases.
        leases: Vec<u64>,
    },
    /// Tells that bytes read under a lease did not match their checksum.
    Corrupt {
        /// The identity.
        scope: u32,
        /// The block.
        key: Key,
        /// Which filling of it.
        generation: u64,
    },
    /// Asks for blocks to be written into the caller's memory.
    Fetch {
        /// The identity.
        scope: u32,
        /// What and where to.
        fetch: Fetch,
    },
    /// Keeps blocks from eviction, or stops that.
    Pin {
        /// The identity.
        scope: u32,
        /// Pin or unpin.
        pin: bool,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Removes blocks.
    Remove {
        /// The identity.
        scope: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// Has blocks of tiers below brought to memory.
    Prefetch {
        /// The identity.
        scope: u32,
        /// The blocks, the most urgent first.
        keys: Vec<Key>,
    },
    /// Has blocks written where they survive a crash, and says when they are.
    Persist {
        /// The identity.
        scope: u32,
        /// How long to wait for that, milliseconds.
        wait_ms: u32,
        /// The blocks.
        keys: Vec<Key>,
    },
    /// [`Lease`](Request::Lease) of some bytes of each block, of which no more is brought to memory.
    LeaseParts {
        /// The identity.
        scope: u32,
        /// How long to wait for what is being filled or brought, milliseconds.
        wait_ms: u32,
        /// How long the lease holds without a release, milliseconds.
        ttl_ms: u32,
        /// The parts.
        parts: Vec<Part>,
    },
    /// Asks for a page of the tenant's blocks, of all its identities.
    List {
        /// Where the page starts.
        start: Place,
        /// What is in these tiers.
        tiers: Tiers,
        /// Only keys whose hex digits start like this.
        prefix: String,
    },
    /// Asks for the tenant's statistics.
    Stats,
    /// Asks for events as they happen, from a sequence number on; `u64::MAX` for "from now".
    Subscribe {
        /// The first event wanted.
        from: u64,
    },
    /// Stops them.
    Unsubscribe,
    /// Asks for a sign of life.
    Ping,
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const IDENTIFY: u8 = 2;
    pub(super) const LOOKUP: u8 = 3;
    pub(super) const RESERVE: u8 = 4;
    pub(super) const COMMIT: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const LEASE: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const CORRUPT: u8 = 9;
    pub(super) const FETCH: u8 = 10;
    pub(super) const PIN: u8 = 11;
    pub(super) const REMOVE: u8 = 12;
    pub(super) const STATS: u8 = 13;
    pub(super) const SUBSCRIBE: u8 = 14;
    pub(super) const UNSUBSCRIBE: u8 = 15;
    pub(super) const PING: u8 = 16;
    pub(super) const PUT: u8 = 17;
    pub(super) const LIST: u8 = 18;
    pub(super) const PREFETCH: u8 = 19;
    pub(super) const PERSIST: u8 = 20;
    pub(super) const LEASE_PARTS: u8 = 21;
}

/// Bytes of an [`Item`]: key, flag, parent, position, length.
const ITEM_BYTES: usize = KEY_BYTES + 1 + KEY_BYTES + 4 + 8;
/// Bytes of a [`Source`]: reservation, checksum, offset.
const SOURCE_BYTES: usize = 8 + 8 + 8;

/// Bytes of a [`Part`]: key, start, end.
const PART_BYTES: usize = KEY_BYTES + 8 + 8;

impl Request {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Identify { .. } => "identify",
            Self::Lookup { .. } => "lookup",
            Self::Reserve { .. } => "reserve",
            Self::Commit { .. } => "commit",
            Self::Put(_) => "put",
            Self::Abort { .. } => "abort",
            Self::Lease { .. } => "lease",
            Self::Release { .. } => "release",
            Self::Corrupt { .. } => "corrupt",
            Self::Fetch { .. } => "fetch",
            Self::Pin { .. } => "pin",
            Self::Remove { .. } => "remove",
            Self::Prefetch { .. } => "prefetch",
            Self::Persist { .. } => "persist",
            Self::LeaseParts { .. } => "lease_parts",
            Self::List { .. } => "list",
            Self::Stats => "stats",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Ping => "ping",
        }
    }

    /// The message, header included.
    #[must_use]
    pub fn encode(&self, request: u32) -> Vec<u8> {
        let mut to = Writer::with_capacity(HEADER_BYTES + self.capacity());
        Header { kind: self.kind(), request }.put(&mut to);
        match self {
            Self::Hello(hello) => {
                to.u64(MAGIC);
                to.u16(hello.version);
                to.text(&hello.name);
                to.text(&hello.tenant);
                to.text(&hello.token);
            }
            Self::Identify { identity } => to.bytes(identity),
            Self::Lookup { scope, keys } => {
                to.u32(*scope);
                to.keys(keys);
            }
            Self::Reserve { scope, deadline_ms, ttl_ms, items } => {
                to.u32(*scope);
                to.u32(*deadline_ms);
                to.u64(*ttl_ms);
                to.count(items.len());
                for item in items {
                    let Link { key, parent, position } = item.link;
                    to.raw(key.as_bytes());
                    to.u8(u8::from(parent.is_some()));
                    to.raw(parent.map_or([0; KEY_BYTES], |parent| *parent.as_bytes()).as_slice());
                    to.u32(position);
                    to.u64(item.len);
                }
            }
            Self::Commit { blocks } => {
                to.count(blocks.len());
                for (reservation, checksum) in blocks {
                    to.u64(*reservation);
                    to.u64(*checksum);
                }
            }
            Self::Put(put) => {
                to.u32(put.deadline_ms);
                to.descriptor(&put.window);
                to.count(put.blocks.len());
                for Source { reservation, checksum, offset } in &put.blocks {
                    to.u64(*reservation);
                    to.u64(*checksum);
                    to.u64(*offset);
                }
            }
            Self::Abort { reservations } => numbers(&mut to, reservations),
            Self::Lease { scope, wait_ms, ttl_ms, keys } => {
                to.u32(*scope);
                to.u32(*wait_ms);
                to.u32(*ttl_ms);
                to.keys(keys);
            }
            Self::Release { leases } => numbers(&mut to, leases),
            Self::Corrupt { scope, key, generation } => {
                to.u32(*scope);
                to.raw(key.as_bytes());
                to.u64(*generation);
            }
            Self::Fetch { scope, fetch } => {
                to.u32(*scope);
                to.u32(fetch.wait_ms);
                to.descriptor(&fetch.window);
                to.u16(fetch.slot.index);
                to.u16(fetch.slot.generation);
                to.count(fetch.blocks.len());
                for (key, offset) in &fetch.blocks {
                    to.raw(key.as_bytes());
                    to.u64(*offset);
                }
            }
            Self::Pin { scope, pin, keys } => {
                to.u32(*scope);
                to.u8(u8::from(*pin));
                to.keys(keys);
            }
            Self::Remove { scope, keys } | Self::Prefetch { scope, keys } => {
                to.u32(*scope);
                to.keys(keys);
            }
            Self::Persist { scope, wait_ms, keys } => {
                to.u32(*scope);
                to.u32(*wait_ms);
                to.keys(keys);
            }
            Self::LeaseParts { scope, wait_ms, ttl_ms, parts } => {
                to.u32(*scope);
                to.u32(*wait_ms);
                to.u32(*ttl_ms);
                to.count(parts.len());
                for Part { key, start, end } in parts {
                    to.raw(key.as_bytes());
                    to.u64(*start);
                    to.u64(*end);
                }
            }
            Self::List { start, tiers, prefix } => {
                start.put(&mut to);
                to.u8(tiers.bits());
                to.text(prefix);
            }
            Self::Stats => {}
            Self::Subscribe { from } => to.u64(*from),
            Self::Unsubscribe => {}
            Self::Ping => {}
        }
        to.finish()
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Identify { .. } => kind::IDENTIFY,
            Self::Lookup { .. } => kind::LOOKUP,
            Self::Reserve { .. } => kind::RESERVE,
            Self::Commit { .. } => kind::COMMIT,
            Self::Put(_) => kind::PUT,
            Self::Abort { .. } => kind::ABORT,
            Self::Lease { .. } => kind::LEASE,
            Self::Release { .. } => kind::RELEASE,
            Self::Corrupt { .. } => kind::CORRUPT,
            Self::Fetch { .. } => kind::FETCH,
            Self::Pin { .. } => kind::PIN,
            Self::Remove { .. } => kind::REMOVE,
            Self::Prefetch { .. } => kind::PREFETCH,
            Self::Persist { .. } => kind::PERSIST,
            Self::LeaseParts { .. } => kind::LEASE_PARTS,
            Self::List { .. } => kind::LIST,
            Self::Stats => kind::STATS,
            Self::Subscribe { .. } => kind::SUBSCRIBE,
            Self::Unsubscribe => kind::UNSUBSCRIBE,
            Self::Ping => kind::PING,
        }
    }

    /// A good guess of how long the body is, bytes.
    fn capacity(&self) -> usize {
        match self {
            Self::Lookup { keys, .. } | Self::Lease { keys, .. } => 16 + keys.len() * KEY_BYTES,
            Self::Reserve { items, .. } => 24 + items.len() * ITEM_BYTES,
            Self::Commit { blocks } => 8 + blocks.len() * 16,
            Self::Put(put) => 128 + put.blocks.len() * SOURCE_BYTES,
            _ => 64,
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is malformed; the header is given where it could be read, to answer to.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), (Option<u32>, Malformed)> {
        let mut from = Reader::new(bytes);
        let header = Header::take(&mut from).map_err(|error| (None, error))?;
        match Self::body(header.kind, from) {
            Ok(request) => Ok((header.request, request)),
            Err(error) => Err((Some(header.request), error)),
        }
    }

    fn body(kind: u8, mut from: Reader<'_>) -> Result<Self, Malformed> {
        let request = match kind {
            kind::HELLO => {
                let magic = from.u64("magic")?;
                if magic != MAGIC {
                    return Err(Malformed::value("magic", format_args!("{magic:#x}"), "TRANSHIP"));
                }
                let version = from.u16("version")?;
                if version != VERSION {
                    // Later fields may differ; the daemon answers by the version alone.
                    let (name, tenant, token) = Default::default();
                    return Ok(Self::Hello(Hello { version, name, tenant, token }));
                }
                let name = from.text("name")?;
                let tenant = from.text("tenant")?;
                let token = from.text("token")?;
                Self::Hello(Hello { version, name, tenant, token })
            }
            kind::IDENTIFY => {
                Self::Identify { identity: from.bytes("identity", IDENTITY_BYTES_MAX)?.to_vec() }
            }
            kind::LOOKUP => Self::Lookup { scope: scope(&mut from)?, keys: keys(&mut from)? },
            kind::RESERVE => {
                let scope = scope(&mut from)?;
                let deadline_ms = from.u32("deadline")?;
                let ttl_ms = from.u64("time to live")?;
                let count = from.count("items", FILL_BATCH_MAX, ITEM_BYTES)?;
                let items = (0..count).map(|_| item(&mut from)).collect::<Result<_, _>>()?;
                Self::Reserve { scope, deadline_ms, ttl_ms, items }
            }
            kind::COMMIT => {
                let count = from.count("blocks", FILL_BATCH_MAX, 16)?;
                let block =
                    |from: &mut Reader<'_>| Ok((from.u64("reservation")?, from.u64("checksum")?));
                let blocks = (0..count).map(|_| block(&mut from)).collect::<Result<_, _>>()?;
                Self::Commit { blocks }
            }
            kind::PUT => {
                let deadline_ms = from.u32("deadline")?;
                let window = from.descriptor()?;
                let count = from.count("blocks", FILL_BATCH_MAX, SOURCE_BYTES)?;
                let blocks = (0..count).map(|_| source(&mut from)).collect::<Result<_, _>>()?;
                Self::Put(Put { deadline_ms, window, blocks })
            }
            kind::ABORT => Self::Abort { reservations: take_numbers(&mut from, "reservations")? },
            kind::LEASE => Self::Lease {
                scope: scope(&mut from)?,
                wait_ms: from.u32("wait")?,
                ttl_ms: from.u32("time to live")?,
                keys: keys(&mut from)?,
            },
            kind::RELEASE => Self::Release { leases: take_numbers(&mut from, "leases")? },
            kind::CORRUPT => Self::Corrupt {
                scope: scope(&mut from)?,
                key: from.key("key")?,
                generation: from.u64("generation")?,
            },
            kind::FETCH => {
                let scope = scope(&mut from)?;
                let wait_ms = from.u32("wait")?;
                let window = from.descriptor()?;
                let slot = Slot { index: from.u16("slot")?, generation: from.u16("slot")? };
                let count = from.count("blocks", BATCH_MAX, KEY_BYTES + 8)?;
                let block = |from: &mut Reader<'_>| Ok((from.key("key")?, from.u64("offset")?));
                let blocks = (0..count).map(|_| block(&mut from)).collect::<Result<_, _>>()?;
                Self::Fetch { scope, fetch: Fetch { wait_ms, window, slot, blocks } }
            }
            kind::PIN => {
                let scope = scope(&mut from)?;
                let pin = flag(&mut from, "pin")?;
                Self::Pin { scope, pin, keys: keys(&mut from)? }
            }
            kind::REMOVE => Self::Remove { scope: scope(&mut from)?, keys: keys(&mut from)? },
            kind::PREFETCH => Self::Prefetch { scope: scope(&mut from)?, keys: keys(&mut from)? },
            kind::PERSIST => Self::Persist {
                scope: scope(&mut from)?,
                wait_ms: from.u32("wait")?,
                keys: keys(&mut from)?,
            },
            kind::LEASE_PARTS => {
                let scope = scope(&mut from)?;
                let wait_ms = from.u32("wait")?;
                let ttl_ms = from.u32("time to live")?;
                let count = from.count("parts", BATCH_MAX, PART_BYTES)?;
                let parts = (0..count).map(|_| part(&mut from)).collect::<Result<_, _>>()?;
                Self::LeaseParts { scope, wait_ms, ttl_ms, parts }
            }
            kind::LIST => Self::List {
                start: Place::take(&mut from)?,
                tiers: tiers(&mut from)?,
                prefix: from.text("prefix")?,
            },
            kind::STATS => Self::Stats,
            kind::SUBSCRIBE => Self::Subscribe { from: from.u64("from")? },
            kind::UNSUBSCRIBE => Self::Unsubscribe,
            kind::PING => Self::Ping,
            other => return Err(Malformed::value("kind", other, "a request, 1 to 21")),
        };
        from.end()?;
        Ok(request)
    }
}

fn scope(from: &mut Reader<'_>) -> Result<u32, Malformed> {
    from.u32("scope")
}

fn keys(from: &mut Reader<'_>) -> Result<Vec<Key>, Malformed> {
    from.keys("keys", BATCH_MAX)
}

fn flag(from: &mut Reader<'_>, field: &'static str) -> Result<bool, Malformed> {
    match from.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Malformed::value(field, other, "0 or 1")),
    }
}

fn item(from: &mut Reader<'_>) -> Result<Item, Malformed> {
    let key = from.key("key")?;
    let has_parent = flag(from, "has parent")?;
    let parent = from.key("parent")?;
    let position = from.u32("position")?;
    let len = from.u64("length")?;
    Ok(Item { link: Link { key, parent: has_parent.then_some(parent), position }, len })
}

fn part(from: &mut Reader<'_>) -> Result<Part, Malformed> {
    let part = Part { key: from.key("key")?, start: from.u64("start")?, end: from.u64("end")? };
    if part.start > part.end {
        return Err(Malformed::value("end", part.end, "not before its start"));
    }
    Ok(part)
}

fn source(from: &mut Reader<'_>) -> Result<Source, Malformed> {
    Ok(Source {
        reservation: from.u64("reservation")?,
        checksum: from.u64("checksum")?,
        offset: from.u64("offset")?,
    })
}

fn numbers(to: &mut Writer, numbers: &[u64]) {
    to.count(numbers.len());
    for number in numbers {
        to.u64(*number);
    }
}

fn take_numbers(from: &mut Reader<'_>, field: &'static str) -> Result<Vec<u64>, Malformed> {
    let count = from.count(field, BATCH_MAX, 8)?;
    (0..count).map(|_| from.u64(field)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tranship_transport::{Access, Address, EngineId, Kind, Route, WindowId};

    use super::*;
    use crate::identity::IdentityId;
    use crate::tier::Tier;

    fn key() -> impl Strategy<Value = Key> {
        any::<[u8; KEY_BYTES]>().prop_map(Key::from_bytes)
    }

    fn some_keys() -> impl Strategy<Value = Vec<Key>> {
        proptest::collection::vec(key(), 0..20)
    }

    fn link() -> impl Strategy<Value = Link> {
        (key(), proptest::option::of(key()), any::<u32>())
            .prop_map(|(key, parent, position)| Link { key, parent, position })
    }

    fn puts() -> impl Strategy<Value = Request> {
        let route = (0..90u32, any::<(u64, u64)>()).prop_map(|(n, (key, base))| {
            let address = Address::new([Kind::Tcp, Kind::Shm][n as usize % 2], format!("h:{n}"));
            Route { address, key, base }
        });
        let routes = proptest::collection::vec(route, 0..4);
        let sources = proptest::collection::vec(any::<(u64, u64, u64)>(), 0..20);
        (any::<(u128, u32, u32, u64, u32)>(), routes, sources).prop_map(|(raw, routes, sources)| {
            let (engine, slot, generation, len, deadline_ms) = raw;
            let (engine, access) = (EngineId(engine), Access::READ);
            let window = WindowId { slot, generation };
            let window = Descriptor { engine, window, len, access, routes };
            let source = |(reservation, checksum, offset)| Source { reservation, checksum, offset };
            let blocks = sources.into_iter().map(source).collect();
            Request::Put(Put { deadline_ms, window, blocks })
        })
    }

    fn requests() -> impl Strategy<Value = Request> {
        let pairs = || proptest::collection::vec(any::<(u64, u64)>(), 0..20);
        let item = (link(), any::<u64>()).prop_map(|(link, len)| Item { link, len });
        prop_oneof![
            (".{0,40}", ".{0,40}", ".{0,40}").prop_map(|(name, tenant, token)| {
                Request::Hello(Hello { version: VERSION, name, tenant, token })
            }),
            proptest::collection::vec(any::<u8>(), 0..100)
                .prop_map(|identity| Request::Identify { identity }),
            (any::<u32>(), some_keys()).prop_map(|(scope, keys)| Request::Lookup { scope, keys }),
            (any::<u32>(), any::<u32>(), any::<u64>(), proptest::collection::vec(item, 0..20))
                .prop_map(|(scope, deadline_ms, ttl_ms, items)| {
                    Request::Reserve { scope, deadline_ms, ttl_ms, items }
                }),
            pairs().prop_map(|blocks| Request::Commit { blocks }),
            puts(),
            (any::<u32>(), any::<u32>(), any::<u32>(), some_keys()).prop_map(
                |(scope, wait_ms, ttl_ms, keys)| Request::Lease { scope, wait_ms, ttl_ms, keys }
            ),
            proptest::collection::vec(any::<u64>(), 0..9)
                .prop_map(|leases| Request::Release { leases }),
            (any::<u32>(), key(), any::<u64>())
                .prop_map(|(scope, key, generation)| Request::Corrupt { scope, key, generation }),
            (any::<u32>(), any::<bool>(), some_keys())
                .prop_map(|(scope, pin, keys)| Request::Pin { scope, pin, keys }),
            (any::<u32>(), some_keys()).prop_map(|(scope, keys)| Request::Prefetch { scope, keys }),
            (any::<u32>(), any::<u32>(), some_keys())
                .prop_map(|(scope, wait_ms, keys)| Request::Persist { scope, wait_ms, keys }),
            (
                any::<(u32, u32, u32)>(),
                proptest::collection::vec((key(), any::<(u64, u64)>()), 0..9)
            )
                .prop_map(|((scope, wait_ms, ttl_ms), parts)| {
                    let part = |(key, (a, b)): (Key, (u64, u64))| Part {
                        key,
                        start: a.min(b),
                        end: a.max(b),
                    };
                    let parts = parts.into_iter().map(part).collect();
                    Request::LeaseParts { scope, wait_ms, ttl_ms, parts }
                }),
            Just(Request::Stats),
            (key(), key(), any::<u64>(), 0..3usize, 0..8u8, ".{0,40}").prop_map(
                |(id, key, from, tier, tiers, prefix)| {
                    let (identity, tier) =
                        (IdentityId::from_bytes(*id.as_bytes()), Tier::ALL[tier]);
                    let start = Place { tier, identity, key, from };
                    Request::List { start, tiers: Tiers::from_bits(tiers).unwrap(), prefix }
                }
            ),
            any::<u64>().prop_map(|from| Request::Subscribe { from }),
            Just(Request::Ping),
        ]
    }

    proptest! {
        #[test]
        fn every_request_survives_the_wire(id: u32, request in requests()) {
            let bytes = request.encode(id);
            prop_assert_eq!(Request::decode(&bytes).unwrap(), (id, request));
        }

        #[test]
        fn every_truncation_is_refused(request in requests(), cut in 0.0..1.0) {
            let bytes = request.encode(7);
            let cut = (bytes.len() as f64 * cut) as usize;
            prop_assert!(Request::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, kind in 0u8..23) {
            let _ = Request::decode(&bytes);
            let mut framed = vec![kind, 0, 0, 0, 1, 0, 0, 0];
            framed.extend(bytes);
            let _ = Request::decode(&framed);
        }
    }

    #[test]
    fn another_version_is_understood_as_such() {
        let hello = Hello {
            version: VERSION + 1,
            name: "n".into(),
            tenant: "t".into(),
            token: String::new(),
        };
        let (_, decoded) = Request::decode(&Request::Hello(hello).encode(1)).unwrap();
        assert!(matches!(decoded, Request::Hello(hello) if hello.version == VERSION + 1));
    }

    #[test]
    fn a_huge_count_is_refused_before_anything_is_allocated() {
        let mut bytes = Request::Lookup { scope: 0, keys: vec![] }.encode(1);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        let (request, error) = Request::decode(&bytes).unwrap_err();
        assert_eq!(request, Some(1));
        assert!(error.to_string().contains("keys"), "{error}");
    }
}
