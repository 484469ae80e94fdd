//! Requests from bytes that nobody vouches for.

use super::*;
use crate::limits::IDENTITY_BYTES_MAX;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::list::tiers;
use crate::wire::{FILL_BATCH_MAX, Header, MAGIC, VERSION};

impl Request {
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

fn take_numbers(from: &mut Reader<'_>, field: &'static str) -> Result<Vec<u64>, Malformed> {
    let count = from.count(field, BATCH_MAX, 8)?;
    (0..count).map(|_| from.u64(field)).collect()
}
