//! A daemon on a thread of this process, over real fabrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tranship_cache::mover::Bell;
use tranship_cache::policy::Name;
use tranship_cache::server::{Options, Server, TenantConfig};
use tranship_cache::store::{Store, Watermarks};
use tranship_transport::{Address, Builder, Drive, Engine, HostMemory, Kind};

use crate::below::{self, Scripted};

/// A daemon on a thread of its own, with one tenant `default`. Dropping it ends it, and checks
/// that its books add up.
pub struct Daemon {
    engine: Engine,
    /// What it serves.
    pub store: Store,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Over shared memory.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(arena_bytes: usize) -> Self {
        Self::over(arena_bytes, |engine| engine)
    }

    /// Over the fabrics that `fabrics` adds.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn over(arena_bytes: usize, fabrics: impl FnOnce(Builder) -> Builder) -> Self {
        Self::above(&[], arena_bytes, fabrics)
    }

    /// With these tiers below memory, the fastest first.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn above(
        tiers: &[Arc<Scripted>],
        arena_bytes: usize,
        fabrics: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let engine = fabrics(Engine::builder().drive(Drive::Caller)).build().unwrap();
        let bell = Bell::of(&engine);
        tiers.iter().for_each(|tier| tier.rings(bell.notify()));
        let options = Options { stack: below::stack(tiers), bell, ..Options::default() };
        let tenant = TenantConfig {
            name: "default".to_owned(),
            token: None,
            memory: Arc::new(HostMemory::new(arena_bytes).build().unwrap()),
            watermarks: Watermarks::default(),
            policy: Name::default(),
        };
        let mut server = Server::new(engine.clone(), options, vec![tenant]).unwrap();
        let (stop, store) = (Arc::new(AtomicBool::new(false)), server.store().clone());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || server.run(&stopped));
        Self { engine, store, stop, thread: Some(thread) }
    }

    /// Where it is reached over a fabric.
    ///
    /// # Panics
    /// When it does not speak that.
    #[must_use]
    pub fn address(&self, kind: Kind) -> Address {
        let mut addresses = self.engine.addresses().iter();
        addresses.find(|address| address.kind == kind).unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.engine.wake();
        let joined = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            joined.unwrap();
            self.store.audit().unwrap();
        }
    }
}
