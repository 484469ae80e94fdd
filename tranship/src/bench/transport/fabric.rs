//! The fabrics that can be measured between two processes.

use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{Drive, Engine};

use super::PATIENCE;
use crate::bench::{Error, polling};

/// A fabric between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    /// Shared memory of one host.
    Shm,
    /// TCP over the loopback interface.
    Tcp {
        /// Streams for payload.
        streams: u8,
    },
}

impl Fabric {
    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp { .. } => "tcp",
        }
    }

    /// An engine over it.
    pub(super) fn engine(self, busy: bool, copy_threads: usize) -> Result<Engine, Error> {
        let engine = match self {
            Self::Shm => {
                // The fabric counts the threads that help the one that polls.
                let threads = copy_threads.saturating_sub(1);
                Engine::builder().fabric(shm::Config::new().copy_threads(threads))
            }
            Self::Tcp { streams } => Engine::builder().fabric(tcp::Config::new().streams(streams)),
        };
        // Whoever waits drives; nobody else is to take turns with it.
        let engine = engine.polling(polling(busy)).drive(Drive::Caller).deadline(PATIENCE);
        Ok(engine.build()?)
    }
}
