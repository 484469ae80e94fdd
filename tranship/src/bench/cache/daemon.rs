//! The daemon to measure against: a store and its server, without what a real one has around it.

use std::sync::atomic::AtomicBool;

use tranship_cache::Identity;
use tranship_cache::server::{Options, Server, TenantConfig};
use tranship_cache::store::Watermarks;
use tranship_transport::fabric::shm;
use tranship_transport::{Drive, Engine, HostMemory};

use crate::bench::{Error, child, polling};

/// Serves an arena of `capacity` bytes for as long as process `parent` lives.
///
/// # Errors
/// When there is no engine or no memory.
pub fn run(parent: u32, busy: bool, capacity: u64) -> Result<(), Error> {
    child::end_with(parent)?;
    let engine = Engine::builder()
        .fabric(shm::Config::new())
        .polling(polling(busy))
        .drive(Drive::Caller)
        .build()?;
    let bytes = usize::try_from(capacity).unwrap_or(usize::MAX);
    let tenant = TenantConfig {
        name: Identity::TENANT_DEFAULT.to_owned(),
        token: None,
        memory: HostMemory::new(bytes).huge_pages().build()?,
        watermarks: Watermarks::default(),
    };
    let mut server = Server::new(engine.clone(), Options::default(), vec![tenant])?;
    child::tell_address(&engine)?;
    server.run(&AtomicBool::new(false));
    Ok(())
}
