//! What tenants' policies expect of blocks that need not be in memory any more.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use super::{Store, Tenant};
use crate::policy::{Price, by_use_below};
use crate::sync::{REGISTRY, Ranked};
use crate::tier::cold::{Mark, Name};
use crate::tier::dram::ScopeRef;
use crate::tier::nvme::Judge;
use crate::time::Millis;

/// Judges blocks below memory by what the policies of their tenants expect of them. Tiers are opened before the
/// store that is above them: a clone goes to the tier, and the other [follows](Self::follow) the store.
///
/// A block is worth being written again if it is worth much more than what came up of late ([`Price`]).
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    tenants: Arc<OnceLock<Weak<Ranked<Vec<Tenant>, REGISTRY>>>>,
    price: Price,
}

impl Outlook {
    /// From now on the policies of `store` are asked; one that was given before is kept.
    pub fn follow(&self, store: &Store) {
        let _ = self.tenants.set(Arc::downgrade(&store.tenants));
    }

    /// For each of these blocks, which were written `age` ago, the uses a second that are expected of it; see
    /// [`Policy::worth`](crate::policy::Policy::worth). One that no policy remembers is judged by its use below.
    pub fn uses(&self, blocks: &[(Name, Mark)], age: Millis) -> Vec<f32> {
        let tenants = self.tenants.get().and_then(Weak::upgrade);
        let tenants = tenants.map(|tenants| tenants.lock().clone()).unwrap_or_default();
        let mut scopes = HashMap::new();
        let uses = |(name, mark): &(Name, Mark)| {
            let scope = scopes.entry(name.identity).or_insert_with(|| {
                let of = |tenant: &Tenant| tenant.shard().look(|dram| dram.scope(name.identity));
                tenants.iter().find_map(|tenant| Some((tenant, of(tenant)?)))
            });
            let recalled = scope.as_ref().and_then(|(tenant, scope): &(&Tenant, ScopeRef)| {
                tenant.shard().look(|dram| dram.outlook(scope, name.key))
            });
            recalled.unwrap_or_else(|| by_use_below(u32::from(mark.hits), age))
        };
        blocks.iter().map(uses).collect()
    }
}

impl Judge for Outlook {
    fn worth(&mut self, blocks: &[(Name, Mark)], age: Millis) -> Vec<f32> {
        let uses = self.uses(blocks, age);
        // Of those worth being written again some have to leave as well: all of them count.
        self.price.learn_all(&uses);
        uses.iter().map(|uses| self.price.again(*uses)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tranship_transport::memory::HostMemory;

    use super::*;
    use crate::identity::{Geometry, Identity};
    use crate::lineage::Chain;
    use crate::policy::Lineage;
    use crate::store::{Options, Scope, TenantOptions};
    use crate::tier::cold::Record;
    use crate::tier::nvme::disk::sim::Device;
    use crate::tier::nvme::testing::{Stepped, bytes, clock, record, span};
    use crate::tier::nvme::{self, Engine, Hits};

    fn opened() -> (Store, Scope) {
        let store = Store::new(Options::default());
        let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        let memory = HostMemory::new(1 << 20).build().unwrap();
        let policy = Box::new(Lineage::new());
        let options = TenantOptions { policy, ..TenantOptions::new("default", memory) };
        let scope = store.open_tenant(options).unwrap().register(&identity).unwrap();
        (store, scope)
    }

    #[test]
    fn what_a_policy_remembers_counts_and_otherwise_what_the_tier_saw() {
        let (outlook, (store, scope)) = (Outlook::default(), opened());
        let identity = scope.identity().clone();
        let named = |token| {
            let key = Chain::new(&identity).push_tokens(&[token]).key;
            (key, Name { identity: identity.id(), key })
        };
        let ((known, known_name), (_, unknown_name)) = (named(1), named(2));
        // Nothing but lookups, as for blocks that are used in a tier below.
        for second in 0..50 {
            scope.lookup(&[known], &mut Vec::new(), Millis(second * 10_000));
        }
        let mark = |hits| Mark { hits, parent: false };
        let blocks = [(known_name, mark(0)), (unknown_name, mark(0)), (unknown_name, mark(3))];
        let worth = |outlook: &Outlook| outlook.uses(&blocks, Millis(3_600_000));
        let [forgotten, same, used] = worth(&outlook)[..] else { panic!("one for each") };
        assert_eq!(forgotten, same, "it follows no store yet");
        assert!(used > 3.0 * same);
        outlook.follow(&store);
        let [known, unknown, _] = worth(&outlook)[..] else { panic!("one for each") };
        assert!(known > 10.0 * forgotten);
        assert_eq!(unknown, forgotten);
        let mut judge = outlook.clone();
        let [known, unknown, _] = judge.worth(&blocks, Millis(3_600_000))[..] else { panic!() };
        assert!(known >= 1.0 && unknown < 1.0, "{known} {unknown}");
        drop((store, scope));
        assert_eq!(worth(&outlook)[0], forgotten, "the store is gone");
    }

    /// How many of eight blocks, which somebody uses in memory every five seconds and nobody ever loads, a log
    /// still has when six times as many others were stored as there is room for.
    fn kept(by_policy: bool) -> usize {
        const SEGMENT_BYTES: u64 = 1 << 20;
        const BLOCK_BYTES: usize = 64 << 10;
        let outlook = Outlook::default();
        let judge: Box<dyn Judge> =
            if by_policy { Box::new(outlook.clone()) } else { Box::new(Hits) };
        let device = Device::new(13 * SEGMENT_BYTES as usize, 1);
        let options = nvme::Options { segment_bytes: SEGMENT_BYTES, ..nvme::Options::default() };
        let log = Engine::open(device.open(), &options, judge, [1; 16], &clock).unwrap();
        let mut log = Stepped::new(log);

        let (store, scope) = opened();
        outlook.follow(&store);

        let content = bytes(1, BLOCK_BYTES);
        let from = span(&content);
        let block = |number| Record { identity: scope.identity().id(), ..record(number, &content) };
        for number in 0..1_200 {
            if number % 5 == 0 {
                for used in (0..8).map(|used| block(used).link.key) {
                    scope.lookup(&[used], &mut Vec::new(), Millis(1_000 * number));
                }
            }
            let token = log.submit_store(block(number), from.clone(), false);
            assert_eq!(log.wait(token), Ok(None));
            log.pass(Millis(1_000));
        }
        let wall = log.now.wall;
        (0..8).filter(|used| log.desk().find(&block(*used).name(), wall).is_some()).count()
    }

    #[test]
    fn what_is_used_in_memory_stays_below() {
        assert_eq!((kept(true), kept(false)), (8, 0));
    }
}
