//! What can go wrong for a client.

use std::time::Duration;

use tranship_transport::{
    Address, BuildError, CountersExhausted, Outcome, PeerError, RangeError, Reason, RegionError,
    RevokeError, WindowError,
};

use crate::identity::IdentityError;
use crate::key::Key;
use crate::wire::{Fault, Malformed};

/// A call that failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport could not be set up.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// Nobody serves there, or not to this client.
    #[error("daemon at {address}: {}; {}", what(error), remedy(error))]
    Unreachable {
        /// Where.
        address: Address,
        /// What the transport said.
        error: PeerError,
    },
    /// The daemon went away during the call. Nothing that was not acknowledged has happened for
    /// sure; the next call connects again.
    #[error("the daemon at {address} is gone; the next call connects again")]
    Disconnected {
        /// Where it was.
        address: Address,
    },
    /// A call soon after a failed attempt to connect.
    #[error("the daemon at {address} was not there {since:?} ago; tried again after {backoff:?}")]
    Backoff {
        /// Where.
        address: Address,
        /// How long ago the last attempt was.
        since: Duration,
        /// How long to wait between attempts.
        backoff: Duration,
    },
    /// The daemon did not answer in time.
    #[error("no answer to {request} within {timeout:?}")]
    Timeout {
        /// The request.
        request: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// The request could not be sent.
    #[error("{request} was not sent: {outcome}")]
    NotSent {
        /// The request.
        request: &'static str,
        /// How its transfer ended.
        outcome: Outcome,
    },
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(#[from] Fault),
    /// The daemon's answer makes no sense.
    #[error("the daemon's answer to {request} makes no sense: {error}")]
    Malformed {
        /// The request.
        request: &'static str,
        /// What is wrong with it.
        error: Malformed,
    },
    /// The daemon answered something else.
    #[error("the daemon answered {request} with something else")]
    Mismatched {
        /// The request.
        request: &'static str,
    },
    /// The identity breaks a limit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Memory for a copy could not be had.
    #[error(transparent)]
    Memory(#[from] RegionError),
    /// No window into the caller's memory could be opened.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The window into the caller's memory could not be closed in time: bytes may still land there.
    #[error(transparent)]
    NotFenced(#[from] RevokeError),
    /// The engine has no counter left.
    #[error(transparent)]
    Counters(#[from] CountersExhausted),
    /// The daemon named bytes outside its arena.
    #[error("the daemon named bytes outside its arena: {0}")]
    Arena(#[from] RangeError),
}

/// What stands in the way of a connection.
fn what(error: &PeerError) -> String {
    match error {
        PeerError::Refused { why: Reason::Unreachable, .. } => "nobody answers there".to_owned(),
        PeerError::Refused { why, .. } => why.to_string(),
        PeerError::Silent { timeout, .. } => format!("no answer within {timeout:?}"),
        other => other.to_string(),
    }
}

/// What to do about it.
fn remedy(error: &PeerError) -> &'static str {
    match error {
        PeerError::Refused { why: Reason::Version, .. } => {
            "use a client and a daemon of the same release"
        }
        PeerError::Refused { why: Reason::Full, .. } => "raise limits.max_clients",
        PeerError::Refused { why: Reason::Unauthorised, .. } => {
            "give both the same, with --token-file or TRANSHIP_TOKEN"
        }
        PeerError::Refused { why: Reason::Foreign, .. } => "check the port",
        PeerError::Refused { why: Reason::Unresolved, .. } => "check the name",
        PeerError::Refused { why: Reason::Unreachable | Reason::PeerGone, .. } => {
            "start one with `tranship serve`, or check the address"
        }
        PeerError::Silent { .. } => "it is starting, stopped or overloaded: see its log, try again",
        _ => "see the daemon's log",
    }
}

/// Staging memory that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StagingError {
    /// The block is longer than all of it.
    #[error(
        "{len} bytes do not fit into the client's staging memory of {limit} bytes, which blocks \
         pass through where the arena cannot be mapped; give the client more"
    )]
    TooLarge {
        /// The block, bytes.
        len: u64,
        /// All staging memory, bytes.
        limit: u64,
    },
    /// It is in use.
    #[error(
        "no room for {len} bytes: {used} of {limit} bytes of the client's staging memory are in \
         use; commit or drop reservations, drop leases with views, or give the client more"
    )]
    Full {
        /// The block, bytes.
        len: u64,
        /// What is in use, bytes.
        used: u64,
        /// All staging memory, bytes.
        limit: u64,
    },
}

/// A block that could not be read or filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not in the lease, or not ready there.
    #[error("block {index} of the lease is not ready")]
    NotReady {
        /// Which.
        index: usize,
    },
    /// The buffer has another length than the block.
    #[error("block {key} has {len} bytes, the buffer {buffer}")]
    Length {
        /// The block.
        key: Key,
        /// Its length, bytes.
        len: u64,
        /// The buffer's length, bytes.
        buffer: u64,
    },
    /// The bytes do not match the block's checksum: a miss. The daemon was told and drops it. The
    /// buffer holds bytes that must not be used.
    #[error(
        "block {key} has checksum {found:016x}, not {expected:016x}; dropped, treat it as a miss"
    )]
    Corrupt {
        /// The block.
        key: Key,
        /// Checksum as committed.
        expected: u64,
        /// Checksum of the bytes read.
        found: u64,
    },
    /// No memory for the block to pass through.
    #[error("block {key}: {error}")]
    Staging {
        /// The block.
        key: Key,
        /// What is missing, and what to do.
        error: StagingError,
    },
    /// The bytes could not be brought here: a miss.
    #[error("block {key} could not be read: {outcome}")]
    Transfer {
        /// The block.
        key: Key,
        /// How the transfer ended.
        outcome: Outcome,
    },
}
