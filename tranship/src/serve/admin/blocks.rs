//! Listing blocks and making them go.

use tonic::Status;
use tranship_cache::Key;
use tranship_cache::key::KEY_BYTES;
use tranship_cache::limits::SCAN_BLOCKS;
use tranship_cache::store::{Filter, Listed, Listing, PageLimits, Place};
use tranship_cache::tier::{Tier, Tiers};
use tranship_cache::time::Wall;

use super::{Asker, pb, scope, tenant};
use crate::serve::observe::Observe;

/// Blocks on a page when nobody says how many.
const PAGE_BLOCKS: u32 = 1000;
/// Most blocks on a page; about 2 MiB on the wire.
const PAGE_BLOCKS_MAX: u32 = 10_000;
/// Places visited before looking whether somebody still waits.
const VISITS_MAX: usize = 16 * SCAN_BLOCKS;
/// Most keys in one request.
const KEYS_MAX: usize = 65_536;
/// Keys removed, and space evicted, before looking whether somebody still waits.
const CHUNK_KEYS: usize = 1024;
const CHUNK_BYTES: u64 = 1 << 30;

pub(super) fn list(
    observe: &Observe,
    request: &pb::ListRequest,
    asker: &Asker,
) -> Result<pb::ListResponse, Status> {
    let tenant = tenant(&observe.store, &request.tenant)?;
    let identity = match request.identity.as_str() {
        "" => None,
        identity => Some(scope(&tenant, identity)?.id()),
    };
    let listing =
        Listing { tiers: tiers(&request.tiers)?, identity, keys: prefix(&request.key_prefix)? };
    let mut next = Some(place(&request.page_token)?);
    let size = match request.page_size {
        0 => PAGE_BLOCKS,
        size => size.min(PAGE_BLOCKS_MAX),
    } as usize;
    let now = ((observe.now)(), Wall::now());
    let mut blocks = Vec::new();
    while let Some(from) = next
        && blocks.len() < size
    {
        asker.waits()?;
        let limits = PageLimits { blocks: size - blocks.len(), visits: VISITS_MAX };
        let page = tenant.list(&listing, from, limits, now);
        blocks.extend(page.blocks.iter().map(Into::into));
        next = page.next;
    }
    Ok(pb::ListResponse { blocks, next_page_token: next.map(token).unwrap_or_default() })
}

pub(super) fn evict(
    observe: &Observe,
    request: &pb::EvictRequest,
    asker: &Asker,
) -> Result<pb::EvictResponse, Status> {
    let tenant = tenant(&observe.store, &request.tenant)?;
    if request.bytes == 0 {
        return Err(Status::invalid_argument("bytes is 0; say how much space shall come back"));
    }
    let mut freed_bytes = 0;
    while freed_bytes < request.bytes {
        asker.waits()?;
        let wanted = (request.bytes - freed_bytes).min(CHUNK_BYTES);
        let freed = tenant.evict(wanted, (observe.now)());
        freed_bytes += freed;
        if freed < wanted {
            break;
        }
    }
    tracing::info!(tenant = tenant.name(), freed_bytes, "evicted by an administrator");
    Ok(pb::EvictResponse { freed_bytes })
}

pub(super) fn remove(
    observe: &Observe,
    request: &pb::RemoveRequest,
    asker: &Asker,
) -> Result<pb::RemoveResponse, Status> {
    let tenant = tenant(&observe.store, &request.tenant)?;
    let scope = scope(&tenant, &request.identity)?;
    if request.keys.is_empty() != request.whole_identity {
        return Err(Status::invalid_argument("give either keys or whole_identity"));
    }
    if request.keys.len() > KEYS_MAX {
        let keys = request.keys.len();
        return Err(Status::invalid_argument(format!("{keys} keys; at most {KEYS_MAX} at once")));
    }
    let keys = request.keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
    let mut removed = 0;
    if request.whole_identity {
        removed = scope.close();
    }
    for keys in keys.chunks(CHUNK_KEYS) {
        asker.waits()?;
        removed += scope.remove(keys);
    }
    let (tenant, identity) = (tenant.name(), scope.id());
    tracing::info!(tenant, %identity, removed, "removed by an administrator");
    Ok(pb::RemoveResponse { removed: removed as u64 })
}

pub(super) fn clear(
    observe: &Observe,
    request: &pb::ClearRequest,
    asker: &Asker,
) -> Result<pb::ClearResponse, Status> {
    let tenant = tenant(&observe.store, &request.tenant)?;
    let scopes = match request.identity.as_str() {
        "" => tenant.scopes(),
        identity => vec![scope(&tenant, identity)?],
    };
    let mut removed = 0;
    for scope in scopes {
        asker.waits()?;
        removed += scope.clear();
    }
    tracing::info!(tenant = tenant.name(), removed, "cleared by an administrator");
    Ok(pb::ClearResponse { removed: removed as u64 })
}

fn key(text: &str) -> Result<Key, Status> {
    text.parse().map_err(|why| Status::invalid_argument(format!("key {text:?}: {why}")))
}

fn prefix(digits: &str) -> Result<Filter, Status> {
    if digits.len() <= 2 * KEY_BYTES && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(Filter::prefix(digits));
    }
    let told = format!("key_prefix {digits:?}: a prefix is up to {} hex digits", 2 * KEY_BYTES);
    Err(Status::invalid_argument(told))
}

fn tiers(names: &[String]) -> Result<Tiers, Status> {
    if names.is_empty() {
        return Ok(Tiers::only(Tier::Dram));
    }
    let mut tiers = Tiers::NONE;
    for name in names {
        let known = name.parse().map_err(|error| Status::invalid_argument(format!("tier {error}")));
        tiers.insert(known?);
    }
    Ok(tiers)
}

impl From<&Listed> for pb::Block {
    fn from(block: &Listed) -> Self {
        Self {
            identity: block.identity.to_string(),
            key: block.key.to_string(),
            bytes: block.len,
            position: block.position,
            parent: block.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            leases: block.leases,
            pinned: block.pinned,
            age_ms: block.age_ms,
            expires_in_ms: block.expires_in_ms,
            hits: block.hits,
            checksum: block.checksum,
            tier: block.tier.to_string(),
        }
    }
}

/// A place as `page_token`: tier, identity, key and how far in.
fn token(place: Place) -> String {
    let Place { tier, identity, key, from } = place;
    format!("{tier}.{identity}.{key}.{from:x}")
}

fn place(token: &str) -> Result<Place, Status> {
    if token.is_empty() {
        return Ok(Place::START);
    }
    let read = || {
        let mut parts = token.split('.');
        let tier = parts.next()?.parse().ok()?;
        let identity = parts.next()?.parse().ok()?;
        let key = parts.next()?.parse().ok()?;
        let from = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Place { tier, identity, key, from })
    };
    read().ok_or_else(|| {
        Status::invalid_argument(format!(
            "page_token {token:?}: take next_page_token of the page before, unchanged"
        ))
    })
}
