//! What such a fabric is opened with.

use std::time::Duration;

use super::words::VERSION;
use crate::address::Kind;
use crate::fabric::tcp;

/// What such a fabric is opened with, beside its rails.
#[derive(Debug, Clone)]
pub(in crate::fabric) struct Settings {
    /// What it is called, and how peers know each other.
    pub(in crate::fabric) kind: Kind,
    /// Its connections.
    pub(in crate::fabric) control: tcp::Config,
    /// How much of one transfer a path is given at once, bytes.
    pub(in crate::fabric) stripe_bytes: u64,
    /// Bytes of bulk that one path has under way.
    pub(in crate::fabric) flight_bytes_max: u64,
    /// How long peers have to make their channels before payload goes another way.
    pub(in crate::fabric) join_timeout: Duration,
    /// How long a peer may take to stop using a window before its channels are taken away.
    pub(in crate::fabric) halt_timeout: Duration,
    /// The version of the words that peers are told.
    pub(in crate::fabric) version: u16,
}

impl Settings {
    /// The defaults.
    pub(in crate::fabric) fn new(kind: Kind) -> Self {
        Self {
            kind,
            control: tcp::Config::new(),
            stripe_bytes: 512 << 10,
            flight_bytes_max: 4 << 20,
            join_timeout: Duration::from_secs(5),
            halt_timeout: Duration::from_millis(500),
            version: VERSION,
        }
    }

    /// The number that diallers of this kind show.
    pub(super) fn number(&self) -> u8 {
        match self.kind {
            // With 1 and 2 messages had no numbers.
            Kind::Verbs => 3,
            Kind::Ofi => 4,
            _ => 255,
        }
    }
}
