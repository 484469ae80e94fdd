//! The fabrics that can be measured between two processes.

use tranship_transport::fabric::{ofi, shm, tcp, verbs};
use tranship_transport::{Drive, Engine};

use super::PATIENCE;
use crate::bench::{Error, polling};

/// A fabric between two processes.
#[derive(Debug, Clone)]
pub enum Fabric {
    /// Shared memory of one host.
    Shm,
    /// TCP.
    Tcp {
        /// How it is opened.
        config: tcp::Config,
        /// Streams for payload.
        streams: u8,
    },
    /// RDMA by libibverbs.
    Verbs(verbs::Config),
    /// RDMA by libfabric.
    Ofi(ofi::Config),
}

impl Fabric {
    /// Its name in results.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp { .. } => "tcp",
            Self::Verbs(_) => "verbs",
            Self::Ofi(_) => "ofi",
        }
    }

    /// An engine over it.
    pub(super) fn engine(&self, busy: bool, copy_threads: usize) -> Result<Engine, Error> {
        let engine = Engine::builder();
        let engine = match self.clone() {
            Self::Shm => {
                // The fabric counts the threads that help the one that polls.
                let threads = copy_threads.saturating_sub(1);
                engine.fabric(shm::Config::new().copy_threads(threads))
            }
            Self::Tcp { config, streams } => engine.fabric(config.streams(streams)),
            Self::Verbs(config) => engine.fabric(config),
            Self::Ofi(config) => engine.fabric(config),
        };
        // Whoever waits drives; nobody else is to take turns with it.
        let engine = engine.polling(polling(busy)).drive(Drive::Caller).deadline(PATIENCE);
        Ok(engine.build()?)
    }
}
