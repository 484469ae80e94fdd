//! Listing blocks and making them go.

use std::str::FromStr;

use tonic::Status;
use tranship_cache::block::Info;
use tranship_cache::key::KEY_BYTES;
use tranship_cache::store::Filter;
use tranship_cache::{IdentityId, Key, Millis, Scope};

use super::{Asker, pb, scope, tenant};
use crate::serve::observe::Observe;

/// Blocks on a page when nobody says how many.
const PAGE_BLOCKS: u32 = 1000;
/// Most blocks on a page; about 2 MiB on the wire.
const PAGE_BLOCKS_MAX: u32 = 10_000;
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
    let filter = prefix(&request.key_prefix)?;
    let mut scopes = match request.identity.as_str() {
        "" => tenant.scopes(),
        identity => vec![scope(&tenant, identity)?],
    };
    // An order that stays when identities come and go between pages.
    scopes.sort_unstable_by_key(Scope::id);
    let start = match request.page_token.as_str() {
        "" => Place { identity: IdentityId::from_bytes([0; KEY_BYTES]), from: 0 },
        token => token.parse().map_err(|()| {
            Status::invalid_argument(format!(
                "page_token {token:?}: take next_page_token of the page before, unchanged"
            ))
        })?,
    };
    let size = match request.page_size {
        0 => PAGE_BLOCKS,
        size => size.min(PAGE_BLOCKS_MAX),
    } as usize;
    let now = (observe.now)();
    let mut blocks = Vec::new();
    for scope in scopes.iter().filter(|scope| scope.id() >= start.identity) {
        asker.waits()?;
        let identity = scope.id();
        let from = if identity == start.identity { start.from } else { 0 };
        let page = scope.list(&filter, from, size - blocks.len());
        blocks.extend(page.blocks.iter().map(|info| block(identity, info, now)));
        if let Some(from) = page.next {
            let next_page_token = Place { identity, from }.to_string();
            return Ok(pb::ListResponse { blocks, next_page_token });
        }
    }
    Ok(pb::ListResponse { blocks, next_page_token: String::new() })
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

fn block(identity: IdentityId, info: &Info, now: Millis) -> pb::Block {
    pb::Block {
        identity: identity.to_string(),
        key: info.view.key.to_string(),
        bytes: info.view.len,
        position: info.position,
        parent: info.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        leases: info.leases,
        pinned: info.pinned,
        age_ms: (now - info.committed).0,
        expires_in_ms: info.expires.map(|at| (at - now).0),
        hits: info.hits,
        checksum: info.view.checksum,
    }
}

/// Where a page starts.
struct Place {
    identity: IdentityId,
    from: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:x}", self.identity, self.from)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (identity, from) = text.split_once('.').ok_or(())?;
        let from = usize::from_str_radix(from, 16).map_err(drop)?;
        Ok(Self { identity: identity.parse().map_err(drop)?, from })
    }
}
