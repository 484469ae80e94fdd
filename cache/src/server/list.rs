//! Listing a tenant's blocks for its clients, a bounded piece at a time: the thread that serves
//! everybody visits no more than a few thousand places for one request.

use tranship_transport::Peer;

use super::Server;
use crate::limits::SCAN_BLOCKS;
use crate::store::{Filter, Listing, PageLimits, Place};
use crate::tier::Tiers;
use crate::time::Wall;
use crate::wire::{Batches, Fault, Reply};

/// Places visited for one request, but for what a tier visits at once.
const VISITS_MAX: usize = 4 * SCAN_BLOCKS;

impl Server {
    pub(super) fn list(
        &mut self,
        from: Peer,
        start: Place,
        tiers: Tiers,
        prefix: &str,
    ) -> Result<Reply, Fault> {
        let now = (self.now(), Wall::now());
        let blocks = Batches::within(self.engine.message_bytes_max()).listed;
        let limits = PageLimits { blocks, visits: VISITS_MAX };
        let listing = Listing { tiers, identity: None, keys: Filter::prefix(prefix) };
        Ok(Reply::Listed(self.greeted(from)?.tenant.list(&listing, start, limits, now)))
    }
}
