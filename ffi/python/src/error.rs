//! The exception, which carries the kind of its error.

use std::fmt::Display;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use tranship_cache::client;
use tranship_cache::wire::FaultCode;
use tranship_kv::dial::DialError;
use tranship_kv::queue::QueueError;
use tranship_transport::{PeerError, Reason};

create_exception!(
    tranship,
    Error,
    PyException,
    "A call that failed; `kind` says how: unreachable, unauthorised, version, disconnected, timeout, \
     refused, full, closed, forked, invalid, unsupported, not_fenced or failed."
);

/// An exception of this kind.
pub(crate) fn raise(py: Python<'_>, kind: &str, text: impl Into<String>) -> PyErr {
    let error = Error::new_err(text.into());
    // It can only fail for want of memory; the message is there anyway.
    let _ = error.value(py).setattr("kind", kind);
    error
}

pub(crate) fn invalid(py: Python<'_>, error: impl Display) -> PyErr {
    raise(py, "invalid", error.to_string())
}

pub(crate) fn of_client(py: Python<'_>, error: &client::Error) -> PyErr {
    raise(py, kind(error), error.to_string())
}

pub(crate) fn of_dial(py: Python<'_>, error: &DialError) -> PyErr {
    match error {
        DialError::Client(error) => of_client(py, error),
        other => invalid(py, other),
    }
}

pub(crate) fn of_queue(py: Python<'_>, error: QueueError) -> PyErr {
    let kind = match error {
        QueueError::Full => "full",
        QueueError::Closed => "closed",
        _ => "failed",
    };
    raise(py, kind, error.to_string())
}

pub(crate) fn of_peer(py: Python<'_>, error: &PeerError) -> PyErr {
    raise(py, peer_kind(error), error.to_string())
}

fn peer_kind(error: &PeerError) -> &'static str {
    match error {
        PeerError::Refused { why: Reason::Version, .. } => "version",
        PeerError::Refused { why: Reason::Unauthorised, .. } => "unauthorised",
        PeerError::Refused { why: Reason::Full, .. } => "full",
        PeerError::Silent { .. } => "timeout",
        _ => "unreachable",
    }
}

fn kind(error: &client::Error) -> &'static str {
    use client::Error as E;
    match error {
        E::Unreachable { error, .. } => peer_kind(error),
        E::Timeout { .. } => "timeout",
        E::Backoff { .. } => "unreachable",
        E::Disconnected { .. } | E::NotSent { .. } => "disconnected",
        E::Refused(fault) if fault.code == FaultCode::Version => "version",
        E::Refused(_) => "refused",
        E::Identity(_) => "invalid",
        _ => "failed",
    }
}
