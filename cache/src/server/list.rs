//! Listing a tenant's blocks for its clients, a bounded piece at a time: the thread that serves
//! everybody visits no more than a few thousand places for one request.

use tranship_transport::Peer;

use super::Server;
use crate::limits::SCAN_BLOCKS;
use crate::store::{Filter, Scope};
use crate::wire::{Batches, Fault, Listed, Page, Place, Reply};

/// Places visited for one request at most.
const VISITS_MAX: usize = 4 * SCAN_BLOCKS;

impl Server {
    pub(super) fn list(&mut self, from: Peer, start: Place, prefix: &str) -> Result<Reply, Fault> {
        let now = self.now();
        let max = Batches::within(self.engine.message_bytes_max()).listed;
        let mut scopes = self.greeted(from)?.tenant.scopes();
        // An order that stays when identities come and go between pages.
        scopes.sort_unstable_by_key(Scope::id);
        let filter = Filter::prefix(prefix);
        let mut page = Page { next: None, blocks: Vec::new() };
        let mut visits = 0;
        for scope in scopes.iter().filter(|scope| scope.id() >= start.identity) {
            let identity = scope.id();
            let mut at = match identity == start.identity {
                true => usize::try_from(start.from).unwrap_or(usize::MAX),
                false => 0,
            };
            loop {
                if page.blocks.len() >= max || visits >= VISITS_MAX {
                    page.next = Some(Place { identity, from: at as u64 });
                    return Ok(Reply::Listed(page));
                }
                let some = scope.list_some(&filter, at, max - page.blocks.len());
                visits += SCAN_BLOCKS;
                page.blocks.extend(some.blocks.iter().map(|info| Listed {
                    identity,
                    key: info.view.key,
                    parent: info.parent,
                    position: info.position,
                    len: info.view.len,
                    checksum: info.view.checksum,
                    age_ms: (now - info.committed).0,
                    expires_in_ms: info.expires.map(|at| (at - now).0),
                    hits: info.hits,
                    leases: info.leases,
                    pinned: info.pinned,
                }));
                match some.next {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        Ok(Reply::Listed(page))
    }
}
