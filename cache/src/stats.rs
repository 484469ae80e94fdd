//! Counters and gauges of a tenant, and the sums that must come out.

use serde::Serialize;

use crate::policy::Removal;
use crate::tier::Tier;

/// How many blocks, and how much arena space they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Arena space, whole granules, bytes.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.blocks += 1;
        self.bytes += bytes;
    }

    pub(crate) fn sub(&mut self, bytes: u64) {
        self.blocks -= 1;
        self.bytes -= bytes;
    }
}

/// What happened since the tenant was opened; these only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Keys looked up.
    pub lookups: u64,
    /// Keys found inside the longest unbroken prefix of their lookup, by tier ([`Tier::ALL`]).
    pub hits: [u64; Tier::ALL.len()],
    /// Keys looked up that were no hit.
    pub misses: u64,
    /// Reservations granted.
    pub granted: u64,
    /// Reservations not needed: the block was in memory or below.
    pub existing: u64,
    /// Reservations not granted because somebody was filling the block.
    pub in_flight: u64,
    /// Reservations refused.
    pub refused: u64,
    /// Blocks committed.
    pub committed: u64,
    /// Payload bytes committed.
    pub committed_bytes: u64,
    /// Commits whose checksum did not match the bytes.
    pub mismatched: u64,
    /// Blocks that began to come up from a tier below.
    pub promotions: u64,
    /// Blocks that came up from a tier below.
    pub promoted: u64,
    /// Payload bytes that came up.
    pub promoted_bytes: u64,
    /// Blocks that were taken by a tier below, by tier ([`Tier::ALL`]).
    pub demoted: [u64; Tier::ALL.len()],
    /// Blocks that a tier below was offered and did not take, by tier.
    pub undemoted: [u64; Tier::ALL.len()],
    /// Reservations and promotions that ended without a commit.
    pub abandoned: u64,
    /// Reservations revoked by deadline, disconnect or removal of their identity, and promotions of
    /// blocks that were removed.
    pub revoked: u64,
    /// Leased blocks that were ready.
    pub leased: u64,
    /// Leased blocks that were still being filled, or in a tier below only.
    pub late: u64,
    /// Leased blocks that were not there.
    pub gone: u64,
    /// Leases that passed their deadline before they were released.
    pub lapsed: u64,
    /// Blocks that left because the policy chose them.
    pub evicted: u64,
    /// Blocks that left because somebody asked.
    pub removed: u64,
    /// Blocks that left because their time to live ended.
    pub expired: u64,
    /// Blocks that left because their bytes no longer matched their checksum.
    pub corrupt: u64,
    /// Blocks that left because their scope was cleared.
    pub cleared: u64,
    /// Victims a policy proposed although they were held; not evicted. Any is a bug in the policy.
    pub policy_faults: u64,
    /// Reservations refused because the policy kept what was there; also counted in `refused`.
    pub not_admitted: u64,
}

impl Counters {
    pub(crate) fn left(&mut self, why: Removal) {
        *match why {
            Removal::Evicted => &mut self.evicted,
            Removal::Removed => &mut self.removed,
            Removal::Expired => &mut self.expired,
            Removal::Corrupt => &mut self.corrupt,
            Removal::Cleared => &mut self.cleared,
        } += 1;
    }

    /// Blocks that left for any reason.
    pub fn departed(&self) -> u64 {
        self.evicted + self.removed + self.expired + self.corrupt + self.cleared
    }
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gauges {
    /// Arena size, bytes.
    pub capacity_bytes: u64,
    /// Most space the tenant may use, bytes.
    pub quota_bytes: u64,
    /// Space taken, bytes.
    pub used_bytes: u64,
    /// Largest block that fits without evicting, bytes.
    pub largest_free_bytes: u64,
    /// Free runs in the arena; 1 or 0 when nothing is fragmented.
    pub free_runs: u64,
    /// Being filled.
    pub filling: Amount,
    /// Revoked, but the reservation is not dropped yet, so a late write may still come.
    pub revoking: Amount,
    /// Readable.
    pub resident: Amount,
    /// Removed while leased; the space comes back on the last release.
    pub doomed: Amount,
    /// Readable and protected from eviction by a lease or a pin (also counted in `resident`).
    pub held: Amount,
    /// Readable and pinned (also counted in `resident`).
    pub pinned: Amount,
    /// Readable and on its way to a tier below (also counted in `held`, or in `doomed` when it was
    /// removed meanwhile).
    pub moving: Amount,
    /// Leases not released.
    pub leases: u64,
    /// Identities registered.
    pub scopes: u64,
}

/// One tenant's figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantStats {
    /// The tenant's name.
    pub tenant: String,
    /// The policy's name.
    pub policy: &'static str,
    /// What happened.
    pub counters: Counters,
    /// How things stand.
    pub gauges: Gauges,
}

impl TenantStats {
    /// Checks the sums that always hold.
    ///
    /// # Errors
    /// Names the sum that is off, with its figures.
    pub fn check(&self) -> Result<(), String> {
        let (c, g) = (&self.counters, &self.gauges);
        let open = g.filling.blocks + g.revoking.blocks;
        let kept = g.filling.bytes + g.revoking.bytes + g.resident.bytes + g.doomed.bytes;
        let sums = [
            ("hits_by_tier + misses == lookups", c.hits.iter().sum::<u64>() + c.misses, c.lookups),
            (
                "committed + promoted + abandoned + filling + revoking == granted + promotions",
                c.committed + c.promoted + c.abandoned + open,
                c.granted + c.promotions,
            ),
            (
                "resident + departed == committed + promoted",
                g.resident.blocks + c.departed(),
                c.committed + c.promoted,
            ),
            ("filling + revoking + resident + doomed == used bytes", kept, g.used_bytes),
        ];
        for (sum, left, right) in sums {
            if left != right {
                return Err(format!("tenant {:?}: {sum} is off: {left} != {right}", self.tenant));
            }
        }
        if g.used_bytes > g.capacity_bytes {
            let tenant = &self.tenant;
            return Err(format!("tenant {tenant:?}: {} of {}", g.used_bytes, g.capacity_bytes));
        }
        Ok(())
    }
}
