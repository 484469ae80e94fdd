//! Leases of some bytes of blocks, such as some layers or heads.
//!
//! Of a block that is in memory the part is leased in place. Of one that only a tier below has, no
//! more than the part is brought: it becomes a block of its own for a while, under a key made of the
//! block's and the range, so that it is found again, waited for and evicted like any other.

use std::collections::HashMap;

use tranship_transport::Peer;

use super::Server;
use super::parked::leased;
use crate::block::{Generation, Lease, Outcome};
use crate::catalog::Presence;
use crate::key::Key;
use crate::mover::Piece;
use crate::store::Scope;
use crate::tier::Tier;
use crate::time::Millis;
use crate::wire::{Fault, FaultCode, Leased, Part, Reply};

/// Bytes of parts, and of the blocks that they are of, that one request may name: their checksums are taken
/// on the service thread, and take it some 20 ms.
const CHECKED_BYTES_MAX: u64 = 512 << 20;

/// Refuses parts that leave their block, where its length is known, and requests for too much.
pub(super) fn check(scope: &Scope, parts: &[Part]) -> Result<(), Fault> {
    let mut blocks = HashMap::new();
    let mut bytes: u64 = 0;
    for Part { key, start, end } in parts {
        let len = *blocks.entry(*key).or_insert_with(|| scope.len(*key));
        if let Some(len) = len.filter(|len| end > len) {
            let text = format!(
                "bytes {start}..{end} leave block {key}, which has {len} bytes; ask for less of it"
            );
            return Err(Fault { code: FaultCode::Malformed, text });
        }
        bytes = bytes.saturating_add(end - start);
    }
    bytes = blocks.values().flatten().fold(bytes, |sum, len| sum.saturating_add(*len));
    if bytes > CHECKED_BYTES_MAX {
        let text = format!(
            "{bytes} bytes of parts and of their blocks are to be checked, at most {CHECKED_BYTES_MAX} in one \
             request; ask for fewer at once, or lease whole blocks"
        );
        return Err(Fault { code: FaultCode::Limit, text });
    }
    Ok(())
}

/// What must be in memory: the whole block where it is there anyway, else the part.
pub(super) fn pieces(scope: &Scope, parts: &[Part]) -> Vec<Piece> {
    let piece = |part: &Part| {
        let here =
            matches!(scope.presence(part.key), Presence::Resident(Tier::Dram) | Presence::InFlight);
        let below = || scope.checksum_below(part.key).unwrap_or_default();
        Piece { key: part.key, range: (!here).then(|| (part.start..part.end, below())) }
    };
    parts.iter().map(piece).collect()
}

impl Server {
    pub(super) fn lease_parts(
        &mut self,
        peer: Peer,
        scope: &Scope,
        ttl: Millis,
        parts: &[Part],
    ) -> Reply {
        let pieces = pieces(scope, parts);
        let keys: Vec<Key> = pieces.iter().map(Piece::key).collect();
        let lease = scope.lease(self.session_id(peer), &keys, Some(ttl), self.now());
        let mut intact = HashMap::new();
        let result = |(index, part): (usize, &Part)| {
            let outcome = lease.results()[index];
            match outcome {
                Outcome::Ready(view) if view.key == part.key => {
                    if part.end > view.len {
                        return Leased::Gone;
                    }
                    let (offset, len) = (view.offset + part.start, part.end - part.start);
                    let checksum = scope.checksum(offset, len);
                    // Whoever reads a part cannot check the whole, so that is done here; after the part's own
                    // checksum was taken, so that a stray write is caught by one of the two.
                    if !*intact.entry(part.key).or_insert_with(|| lease.is_intact(index)) {
                        return Leased::Corrupt;
                    }
                    Leased::Ready { offset, len, checksum, generation: view.generation.0 }
                }
                // A part outlives its block by a little; nobody gets it then.
                Outcome::Ready(_) if scope.presence(part.key) == Presence::Absent => Leased::Gone,
                Outcome::Gone if scope.presence(part.key) != Presence::Absent => Leased::Late,
                other => leased(&other),
            }
        };
        let results = parts.iter().enumerate().map(result).collect();
        self.keep_lease(peer, lease, results)
    }

    /// The key under which a client has a filling leased: that of a part, or `key` itself.
    pub(super) fn leased_as(&self, peer: Peer, key: Key, generation: Generation) -> Key {
        let Some(session) = self.sessions.get(&peer) else { return key };
        let mut views = session.leases.values().flat_map(Lease::ready);
        views.find(|(_, view)| view.generation == generation).map_or(key, |(_, view)| view.key)
    }
}
