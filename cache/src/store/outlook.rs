//! What tenants' policies expect of blocks that need not be in memory any more.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use super::{Store, Tenant};
use crate::policy::by_use_below;
use crate::sync::{REGISTRY, Ranked};
use crate::tier::cold::{Mark, Name};
use crate::tier::dram::ScopeRef;
use crate::time::Millis;

/// Says what blocks below memory are worth, by the policies of the tenants that they are of: for tiers,
/// which are opened before the store that is above them. A handle.
#[derive(Clone, Debug, Default)]
pub struct Outlook(Arc<OnceLock<Weak<Ranked<Vec<Tenant>, REGISTRY>>>>);

impl Outlook {
    /// From now on the policies of `store` are asked; one that was given before is kept.
    pub fn follow(&self, store: &Store) {
        let _ = self.0.set(Arc::downgrade(&store.tenants));
    }

    /// For each of these blocks, which were written `age` ago, the uses a second that are expected of it; see
    /// [`Policy::worth`](crate::policy::Policy::worth). One that no policy remembers is judged by its use below.
    pub fn worth(&self, blocks: &[(Name, Mark)], age: Millis) -> Vec<f32> {
        let tenants = self.0.get().and_then(Weak::upgrade);
        let tenants = tenants.map(|tenants| tenants.lock().clone()).unwrap_or_default();
        let mut scopes = HashMap::new();
        let worth = |(name, mark): &(Name, Mark)| {
            let scope = scopes.entry(name.identity).or_insert_with(|| {
                let of = |tenant: &Tenant| tenant.shard().look(|dram| dram.scope(name.identity));
                tenants.iter().find_map(|tenant| Some((tenant, of(tenant)?)))
            });
            let recalled = scope.as_ref().and_then(|(tenant, scope): &(&Tenant, ScopeRef)| {
                tenant.shard().look(|dram| dram.outlook(scope, name.key))
            });
            recalled.unwrap_or_else(|| by_use_below(u32::from(mark.hits), age))
        };
        blocks.iter().map(worth).collect()
    }
}

#[cfg(test)]
mod tests {
    use tranship_transport::memory::HostMemory;

    use super::*;
    use crate::identity::{Geometry, Identity};
    use crate::lineage::Chain;
    use crate::policy::Lineage;
    use crate::store::{Options, TenantOptions};

    #[test]
    fn what_a_policy_remembers_counts_and_otherwise_what_the_tier_saw() {
        let (outlook, store) = (Outlook::default(), Store::new(Options::default()));
        let identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        let memory = HostMemory::new(1 << 20).build().unwrap();
        let policy = Box::new(Lineage::new());
        let options = TenantOptions { policy, ..TenantOptions::new("default", memory) };
        let scope = store.open_tenant(options).unwrap().register(&identity).unwrap();
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
        let worth = |outlook: &Outlook| outlook.worth(&blocks, Millis(3_600_000));
        let [forgotten, same, used] = worth(&outlook)[..] else { panic!("one for each") };
        assert_eq!(forgotten, same, "it follows no store yet");
        assert!(used > 3.0 * same);
        outlook.follow(&store);
        let [known, unknown, _] = worth(&outlook)[..] else { panic!("one for each") };
        assert!(known > 10.0 * forgotten);
        assert_eq!(unknown, forgotten);
        drop((store, scope));
        assert_eq!(worth(&outlook)[0], forgotten, "the store is gone");
    }
}
