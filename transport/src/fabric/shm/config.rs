//! How the fabric is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::connection::{COPIERS, RING_BYTES_MAX, RING_BYTES_MIN};
use super::fabric::Shm;
use crate::address::Kind;
use crate::fabric::{Fabric, OpenError, Provider, Setup};

/// How to open the shared memory fabric.
///
/// ```
/// use tranship_transport::fabric::shm;
///
/// let fabric = shm::Config::new().listen_at("/run/user/1000/engine.sock").copy_threads(2);
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) path: Option<PathBuf>,
    pub(super) copy_threads: usize,
    pub(super) ring_bytes: u64,
    pub(super) connections_max: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) any_user: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults: an abstract socket named after the engine, copies done by whoever polls, and
    /// only peers of the same user, or of root, let in.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            path: None,
            copy_threads: 0,
            ring_bytes: 512 << 10,
            connections_max: 1024,
            handshake_timeout: Duration::from_secs(5),
            any_user: false,
        }
    }

    /// Listens at a socket file instead (mode 0600, at most 107 bytes of path). The file of a
    /// process that died is replaced; the file is removed when the fabric closes.
    #[must_use]
    pub fn listen_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Lets `n` threads, 0 to 63, help whoever polls with copies of more than 64 KiB.
    #[must_use]
    pub const fn copy_threads(mut self, n: usize) -> Self {
        self.copy_threads = n;
        self
    }

    /// The size of the message rings, one each way, of the connections dialled from here: a power
    /// of two from 256 KiB to 64 MiB.
    #[must_use]
    pub const fn ring_bytes(mut self, n: u64) -> Self {
        self.ring_bytes = n;
        self
    }

    /// How many connections there can be at once; more callers are turned away.
    #[must_use]
    pub const fn connections_max(mut self, n: usize) -> Self {
        self.connections_max = n;
        self
    }

    /// How long a handshake may take before it is given up.
    #[must_use]
    pub const fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Lets processes of other users in. Whoever is let into a window of a region can reach the
    /// whole region.
    #[must_use]
    pub const fn any_user(mut self) -> Self {
        self.any_user = true;
        self
    }

    fn check(&self) -> Result<(), String> {
        if self.copy_threads >= COPIERS {
            let max = COPIERS - 1;
            return Err(format!("{} copy threads; at most {max} are possible", self.copy_threads));
        }
        if !self.ring_bytes.is_power_of_two()
            || !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.ring_bytes)
        {
            return Err(format!(
                "a ring of {} bytes; give a power of two from {RING_BYTES_MIN} to {RING_BYTES_MAX}",
                self.ring_bytes
            ));
        }
        Ok(())
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Shm
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        self.check()
            .and_then(|()| Shm::open(*self, setup))
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Shm, what })
    }
}
