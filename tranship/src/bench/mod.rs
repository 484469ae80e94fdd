//! Measurements of the transport and of the cache.
//!
//! | module | what it holds |
//! |---|---|
//! | [`transport`] | one-sided writes and reads and ping-pong between two processes |
//! | [`cache`] | get, put and lookup against a daemon in a process of its own |
//! | [`nvme`] | the device under the NVMe tier, beside fio |
//! | [`object`] | loads and stores of the object tier, against requests of the same client |
//! | [`mod@ffi`] | what a call costs from another language, beside the same call in Rust |
//! | [`child`] | the other process of a transfer: this program again |
//! | [`rounds`] | an operation and its limit, measured in turns so that noise hits both alike |
//! | [`pages`] | memory larger than the caches, used piece by piece |
//! | [`mod@line`] | one line of the result |
//! | [`error`] | what can go wrong |
//!
//! Payload bytes count once, whatever crosses the memory bus for them; a GB is 10⁹ bytes.

pub mod cache;
pub mod child;
pub mod error;
pub mod ffi;
pub mod line;
pub mod nvme;
pub mod object;
pub mod pages;
pub mod rounds;
pub mod transport;

use std::time::Duration;

use tranship_transport::Polling;

pub use error::Error;
pub use line::Line;

/// What the results count, for their readers.
pub const RULE: &str = "payload bytes count once; 1 GB is 10^9 bytes; limit: streaming copy of the same sizes \
     over the same memory, in turns with the operation";

/// How long one measurement takes and how its processes wait.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Time measured for one line, the limit included.
    pub time: Duration,
    /// Never sleep.
    pub busy: bool,
    /// Bytes on each side that are used in turn.
    pub working_set: u64,
}

impl Plan {
    /// How engines wait.
    #[must_use]
    pub fn polling(&self) -> Polling {
        polling(self.busy)
    }

    /// The word for it in results.
    #[must_use]
    pub const fn polling_name(&self) -> &'static str {
        if self.busy { "busy" } else { "adaptive" }
    }

    /// The working set for pieces of `size` bytes: room for at least four.
    #[must_use]
    pub fn working_set_for(&self, size: u64) -> u64 {
        self.working_set.max(size.saturating_mul(4))
    }
}

/// How an engine waits.
#[must_use]
pub fn polling(busy: bool) -> Polling {
    if busy { Polling::Busy } else { Polling::default() }
}
