//! The memory of each tenant, from the configuration.

use std::sync::Arc;

use tranship_cache::identity::Identity;
use tranship_cache::server::TenantConfig;
use tranship_cache::store::Watermarks;
use tranship_transport::HostMemory;
use tranship_transport::memory::MemoryError;

use crate::config::{Config, HugePages};
use crate::units::human;

/// Why a tenant has no memory.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The memory cannot be had.
    #[error("tenant {tenant:?}: {why}")]
    Memory {
        /// The tenant.
        tenant: String,
        /// Why not.
        #[source]
        why: MemoryError,
    },
    /// Huge pages were required.
    #[error(
        "tenant {tenant:?}: no huge pages for {}: {why}; raise vm.nr_hugepages or use \
         --dram-huge-pages auto",
        human::size(*bytes)
    )]
    NoHugePages {
        /// The tenant.
        tenant: String,
        /// The arena.
        bytes: u64,
        /// What the memory became instead.
        why: String,
    },
}

/// Told how many bytes of all arenas are in place, and of how many.
pub(crate) type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Makes the memory of all tenants.
pub(crate) fn build(config: &Config, progress: &Progress) -> Result<Vec<TenantConfig>, ArenaError> {
    let mut done = 0;
    shares(config)
        .into_iter()
        .map(|share| {
            let tenant = share.build(config, done, progress)?;
            done += tenant.memory.len() as u64;
            Ok(tenant)
        })
        .collect()
}

/// What one tenant gets.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    name: String,
    token: Option<String>,
    bytes: u64,
}

/// Tenants without a size of their own share what is left in equal parts.
fn shares(config: &Config) -> Vec<Share> {
    let capacity = config.dram.capacity.bytes();
    if config.tenants.is_empty() {
        let name = Identity::TENANT_DEFAULT.to_owned();
        return vec![Share { name, token: None, bytes: capacity }];
    }
    let sizes = config.tenants.iter().map(|tenant| tenant.capacity.as_ref());
    let claimed: u64 = sizes.clone().flatten().map(|size| size.bytes()).sum();
    let open = sizes.filter(Option::is_none).count() as u64;
    let rest = capacity.saturating_sub(claimed).checked_div(open).unwrap_or(0);
    let share = |tenant: &crate::config::schema::Tenant| Share {
        name: tenant.name.clone(),
        token: tenant.token.as_ref().map(|token| token.reveal().to_owned()),
        bytes: tenant.capacity.as_ref().map_or(rest, |size| size.bytes()),
    };
    config.tenants.iter().map(share).collect()
}

impl Share {
    fn build(
        self,
        config: &Config,
        before: u64,
        progress: &Progress,
    ) -> Result<TenantConfig, ArenaError> {
        let dram = &config.dram;
        let total = dram.capacity.bytes();
        let mut memory =
            HostMemory::new(usize::try_from(self.bytes).unwrap_or(usize::MAX)).name("arena");
        if dram.huge_pages != HugePages::Off {
            memory = memory.huge_pages();
        }
        if let Some(node) = dram.numa_node.as_ref() {
            memory = memory.numa_node(*node);
        }
        if dram.prefault {
            let progress = progress.clone();
            memory = memory.prefault_with(move |done, _| progress(before + done as u64, total));
        }
        let memory =
            memory.build().map_err(|why| ArenaError::Memory { tenant: self.name.clone(), why })?;
        if dram.huge_pages == HugePages::On && !memory.backing().is_huge() {
            let why = memory.backing().to_string();
            return Err(ArenaError::NoHugePages { tenant: self.name, bytes: self.bytes, why });
        }
        if let Some(why) = &memory.backing().shortfall {
            tracing::info!(tenant = self.name, why, "smaller pages than wished");
        }
        let watermarks =
            Watermarks { low: dram.low_watermark.percent(), high: dram.high_watermark.percent() };
        Ok(TenantConfig {
            name: self.name,
            token: self.token,
            memory: Arc::new(memory),
            watermarks,
            policy: config.policy.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Maybe;
    use crate::config::schema::Tenant;
    use crate::units::Size;

    #[test]
    fn tenants_share_what_is_left() {
        let mut config = Config::default();
        config.dram.capacity = Size::mib(100);
        assert_eq!(shares(&config)[0].bytes, 100 << 20);
        let tenant =
            |name: &str, capacity| Tenant { name: name.into(), capacity, ..Tenant::default() };
        config.tenants = vec![
            tenant("a", Maybe::Unset),
            tenant("b", Maybe::Set(Size::mib(40))),
            tenant("c", Maybe::Unset),
        ];
        let sizes: Vec<u64> = shares(&config).iter().map(|share| share.bytes >> 20).collect();
        assert_eq!(sizes, [30, 40, 30]);
    }
}
