//! Requests as bytes.

use super::*;
use crate::wire::codec::Writer;
use crate::wire::{HEADER_BYTES, Header, MAGIC};

impl Request {
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
}

fn numbers(to: &mut Writer, numbers: &[u64]) {
    to.count(numbers.len());
    for number in numbers {
        to.u64(*number);
    }
}
