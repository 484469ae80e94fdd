//! What the daemon answers, and what it tells unasked.

use tranship_transport::Descriptor;

use super::codec::{Malformed, Reader, Writer};
use super::entry::{Committed, Entry, Event, Fetched, Leased, Reserved};
use super::list::LISTED_BYTES;
use super::{BATCH_MAX, HEADER_BYTES, Header};
use crate::store::{Page, Place};

/// Longest statistics document, bytes.
const STATS_BYTES_MAX: usize = 48 << 10;
/// Most events in one message.
pub(crate) const EVENTS_MAX: usize = 256;

/// What a session starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version the daemon speaks.
    pub version: u16,
    /// What the daemon calls itself.
    pub server: String,
    /// The session's number.
    pub session: u64,
    /// The tenant's arena: readable; on one host also mappable, and writable then.
    pub arena: Descriptor,
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Keys, from the first, that are resident without a break.
    pub prefix: u32,
    /// One byte a key: what is known of it ([`Lookup::ABSENT`], [`Lookup::IN_FLIGHT`], or
    /// [`Lookup::RESIDENT`] plus the tier's number).
    pub presence: Vec<u8>,
}

impl Lookup {
    /// Not there.
    pub const ABSENT: u8 = 0;
    /// Somebody is filling it.
    pub const IN_FLIGHT: u8 = 1;
    /// Resident in the tier of number 0; higher tiers follow.
    pub const RESIDENT: u8 = 2;
}

/// The answer to a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Names the lease; 0 when no block is ready.
    pub lease: u64,
    /// One result a key.
    pub results: Vec<Leased>,
}

/// Why a request failed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultCode {
    /// The message makes no sense.
    Malformed = 1,
    /// The client speaks another version.
    Version = 2,
    /// The tenant is unknown or its token wrong.
    Denied = 3,
    /// The session, scope or identity is unknown or not allowed.
    Unknown = 4,
    /// A limit was hit; try again later or ask for less.
    Limit = 5,
    /// The daemon failed; its log says how.
    Internal = 6,
    /// The daemon ended the session; the connection stands. Say hello again.
    Over = 7,
}

/// A request that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What kind of failure.
    pub code: FaultCode,
    /// What, where and what to do.
    pub text: String,
}

/// What the daemon sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Hello`.
    Welcome(Welcome),
    /// To `Identify`.
    Scope(u32),
    /// To `Lookup`.
    Lookup(Lookup),
    /// To `Reserve`: one a block.
    Reserved(Vec<Reserved>),
    /// To `Commit` and `Put`: one a block.
    Committed(Vec<Committed>),
    /// To `Lease`.
    Leased(Blocks),
    /// To `Fetch`: one a block.
    Fetched(Vec<Fetched>),
    /// To `Persist`: one flag a block, set for those that survive a crash.
    Persisted(Vec<bool>),
    /// To `Abort`, `Release`, `Pin`, `Remove`: how many blocks were concerned; to `Prefetch`: how many
    /// are in memory or on their way; to `Subscribe`,
    /// `Unsubscribe`, `Ping`: zero.
    Count(u64),
    /// To `List`.
    Listed(Page),
    /// To `Stats`: a JSON document.
    Stats(Vec<u8>),
    /// To `Subscribe`, as things happen, with the number of that request.
    Events(Vec<Event>),
    /// Instead of any of them.
    Fault(Fault),
}

mod kind {
    pub(super) const WELCOME: u8 = 129;
    pub(super) const SCOPE: u8 = 130;
    pub(super) const LOOKUP: u8 = 131;
    pub(super) const RESERVED: u8 = 132;
    pub(super) const COMMITTED: u8 = 133;
    pub(super) const LEASED: u8 = 134;
    pub(super) const FETCHED: u8 = 135;
    pub(super) const COUNT: u8 = 136;
    pub(super) const STATS: u8 = 137;
    pub(super) const EVENTS: u8 = 138;
    pub(super) const FAULT: u8 = 139;
    pub(super) const LISTED: u8 = 140;
    pub(super) const PERSISTED: u8 = 141;
}

impl Reply {
    /// The message, header included.
    #[must_use]
    pub fn encode(&self, request: u32) -> Vec<u8> {
        let mut to = Writer::with_capacity(HEADER_BYTES + self.capacity());
        Header { kind: self.kind(), request }.put(&mut to);
        match self {
            Self::Welcome(welcome) => {
                to.u16(welcome.version);
                to.text(&welcome.server);
                to.u64(welcome.session);
                to.descriptor(&welcome.arena);
            }
            Self::Scope(scope) => to.u32(*scope),
            Self::Lookup(found) => {
                to.u32(found.prefix);
                to.bytes(&found.presence);
            }
            Self::Reserved(blocks) => list(&mut to, blocks),
            Self::Committed(blocks) => list(&mut to, blocks),
            Self::Leased(blocks) => {
                to.u64(blocks.lease);
                list(&mut to, &blocks.results);
            }
            Self::Fetched(blocks) => list(&mut to, blocks),
            Self::Persisted(safe) => {
                to.count(safe.len());
                safe.iter().for_each(|safe| to.u8(u8::from(*safe)));
            }
            Self::Count(count) => to.u64(*count),
            Self::Listed(page) => {
                to.u8(u8::from(page.next.is_some()));
                page.next.unwrap_or(Place::START).put(&mut to);
                list(&mut to, &page.blocks);
            }
            Self::Stats(json) => to.bytes(json),
            Self::Events(events) => list(&mut to, events),
            Self::Fault(fault) => {
                to.u8(fault.code as u8);
                to.text(&fault.text);
            }
        }
        to.finish()
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Welcome(_) => kind::WELCOME,
            Self::Scope(_) => kind::SCOPE,
            Self::Lookup(_) => kind::LOOKUP,
            Self::Reserved(_) => kind::RESERVED,
            Self::Committed(_) => kind::COMMITTED,
            Self::Leased(_) => kind::LEASED,
            Self::Fetched(_) => kind::FETCHED,
            Self::Persisted(_) => kind::PERSISTED,
            Self::Count(_) => kind::COUNT,
            Self::Listed(_) => kind::LISTED,
            Self::Stats(_) => kind::STATS,
            Self::Events(_) => kind::EVENTS,
            Self::Fault(_) => kind::FAULT,
        }
    }

    /// A good guess of how long the body is, bytes.
    fn capacity(&self) -> usize {
        match self {
            Self::Lookup(found) => 8 + found.presence.len(),
            Self::Reserved(blocks) => 8 + blocks.len() * 17,
            Self::Committed(blocks) => 8 + blocks.len() * 9,
            Self::Leased(blocks) => 16 + blocks.results.len() * 33,
            Self::Fetched(blocks) => 8 + blocks.len() * 25,
            Self::Persisted(safe) => 8 + safe.len(),
            Self::Listed(page) => 64 + page.blocks.len() * LISTED_BYTES,
            Self::Stats(json) => 8 + json.len(),
            _ => 64,
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Malformed> {
        let mut from = Reader::new(bytes);
        let header = Header::take(&mut from)?;
        let reply = match header.kind {
            kind::WELCOME => Self::Welcome(Welcome {
                version: from.u16("version")?,
                server: from.text("server")?,
                session: from.u64("session")?,
                arena: from.descriptor()?,
            }),
            kind::SCOPE => Self::Scope(from.u32("scope")?),
            kind::LOOKUP => {
                let prefix = from.u32("prefix")?;
                let presence = from.bytes("presence", BATCH_MAX)?.to_vec();
                if prefix as usize > presence.len() {
                    return Err(Malformed::value("prefix", prefix, "at most one a key"));
                }
                Self::Lookup(Lookup { prefix, presence })
            }
            kind::RESERVED => Self::Reserved(take(&mut from, BATCH_MAX)?),
            kind::COMMITTED => Self::Committed(take(&mut from, BATCH_MAX)?),
            kind::LEASED => Self::Leased(Blocks {
                lease: from.u64("lease")?,
                results: take(&mut from, BATCH_MAX)?,
            }),
            kind::FETCHED => Self::Fetched(take(&mut from, BATCH_MAX)?),
            kind::PERSISTED => {
                let count = from.count("count", BATCH_MAX, 1)?;
                let safe = |_| match from.u8("safe")? {
                    0 => Ok(false),
                    1 => Ok(true),
                    other => Err(Malformed::value("safe", other, "0 or 1")),
                };
                Self::Persisted((0..count).map(safe).collect::<Result<_, _>>()?)
            }
            kind::COUNT => Self::Count(from.u64("count")?),
            kind::LISTED => {
                let has_next = from.u8("has next")? != 0;
                let next = Some(Place::take(&mut from)?).filter(|_| has_next);
                Self::Listed(Page { next, blocks: take(&mut from, BATCH_MAX)? })
            }
            kind::STATS => Self::Stats(from.bytes("statistics", STATS_BYTES_MAX)?.to_vec()),
            kind::EVENTS => Self::Events(take(&mut from, EVENTS_MAX)?),
            kind::FAULT => {
                Self::Fault(Fault { code: fault_code(from.u8("code")?)?, text: from.text("text")? })
            }
            other => return Err(Malformed::value("kind", other, "a reply, 129 to 141")),
        };
        from.end()?;
        Ok((header.request, reply))
    }
}

fn list<T: Entry>(to: &mut Writer, items: &[T]) {
    to.count(items.len());
    for item in items {
        item.put(to);
    }
}

fn take<T: Entry>(from: &mut Reader<'_>, max: usize) -> Result<Vec<T>, Malformed> {
    let count = from.count("count", max, 1)?;
    (0..count).map(|_| T::take(from)).collect()
}

fn fault_code(code: u8) -> Result<FaultCode, Malformed> {
    Ok(match code {
        1 => FaultCode::Malformed,
        2 => FaultCode::Version,
        3 => FaultCode::Denied,
        4 => FaultCode::Unknown,
        5 => FaultCode::Limit,
        6 => FaultCode::Internal,
        7 => FaultCode::Over,
        other => return Err(Malformed::value("code", other, "1 to 7")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tranship_transport::{Access, Address, EngineId, Kind, Route, WindowId};

    use super::*;
    use crate::key::{KEY_BYTES, Key};

    fn replies() -> impl Strategy<Value = Reply> {
        let key = || any::<[u8; KEY_BYTES]>().prop_map(Key::from_bytes);
        let reserved = prop_oneof![
            any::<(u64, u64)>()
                .prop_map(|(reservation, offset)| Reserved::Granted { reservation, offset }),
            Just(Reserved::Exists),
            Just(Reserved::InFlight),
            (proptest::option::of(0..u64::MAX), ".{0,40}")
                .prop_map(|(retry_ms, why)| Reserved::Refused { retry_ms, why }),
        ];
        let leased = prop_oneof![
            any::<(u64, u64, u64, u64)>().prop_map(|(offset, len, checksum, generation)| {
                Leased::Ready { offset, len, checksum, generation }
            }),
            Just(Leased::Late),
            Just(Leased::Gone),
            Just(Leased::Corrupt),
        ];
        let event = prop_oneof![
            any::<(u64, u64)>().prop_map(|(from, to)| Event::Gap { from, to }),
            (any::<(u64, u32, u64, u8)>(), key(), key(), proptest::option::of(key())).prop_map(
                |((sequence, position, len, tier), identity, key, parent)| {
                    let identity = *identity.as_bytes();
                    Event::Stored { sequence, identity, key, parent, position, len, tier }
                }
            ),
            (any::<u64>(), key()).prop_map(|(sequence, key)| {
                Event::Removed { sequence, identity: *key.as_bytes(), key, tier: 0 }
            }),
        ];
        prop_oneof![
            any::<u32>().prop_map(Reply::Scope),
            proptest::collection::vec(any::<u8>(), 0..70).prop_map(|presence| {
                Reply::Lookup(Lookup { prefix: presence.len() as u32, presence })
            }),
            proptest::collection::vec(reserved, 0..9).prop_map(Reply::Reserved),
            (any::<u64>(), proptest::collection::vec(leased, 0..9))
                .prop_map(|(lease, results)| Reply::Leased(Blocks { lease, results })),
            proptest::collection::vec(event, 0..9).prop_map(Reply::Events),
            ".{0,90}".prop_map(|text| Reply::Fault(Fault { code: FaultCode::Limit, text })),
            any::<u64>().prop_map(Reply::Count),
            proptest::collection::vec(any::<bool>(), 0..70).prop_map(Reply::Persisted),
        ]
    }

    proptest! {
        #[test]
        fn every_reply_survives_the_wire(id: u32, reply in replies()) {
            prop_assert_eq!(Reply::decode(&reply.encode(id)).unwrap(), (id, reply));
        }

        #[test]
        fn every_truncation_is_refused(reply in replies(), cut in 0.0..1.0) {
            let bytes = reply.encode(7);
            let cut = (bytes.len() as f64 * cut) as usize;
            prop_assert!(Reply::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, kind in 125u8..145) {
            let mut framed = vec![kind, 0, 0, 0, 1, 0, 0, 0];
            framed.extend(bytes);
            let _ = Reply::decode(&framed);
        }
    }

    #[test]
    fn a_welcome_carries_its_descriptor() {
        let arena = Descriptor {
            engine: EngineId(7),
            window: WindowId { slot: 3, generation: 4 },
            len: 1 << 40,
            access: Access::READ | Access::WRITE | Access::MAP,
            routes: [
                Address::new(Kind::Shm, "/run/x"),
                Address::new(Kind::Tcp, "node7:7420"),
                Address::new(Kind::Verbs, "node7:7421"),
                Address::new(Kind::Ofi, "[::1]:7422"),
            ]
            .map(|address| Route { address, key: 5, base: 6 })
            .to_vec(),
        };
        let reply = Reply::Welcome(Welcome { version: 1, server: "s".into(), session: 9, arena });
        assert_eq!(Reply::decode(&reply.encode(2)).unwrap(), (2, reply));
    }
}
