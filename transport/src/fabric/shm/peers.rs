//! Connections, from the first call to the proof that they are over.

use std::os::fd::OwnedFd;

use rustix::net::SocketAddrUnix;

use super::connection::Connection;
use super::link::Link;
use super::socket::Line;
use crate::fabric::PeerId;
use crate::outcome::Reason;
use crate::time::Time;

/// A connection that is reported to the engine, or will be.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) line: Option<Line>,
    /// Readable when the other process has died.
    pub(super) process: Option<OwnedFd>,
    /// Whether the socket is watched for room to send.
    pub(super) watched_for_room: bool,
    pub(super) state: State,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum State {
    /// The listener has no room for callers just now.
    Dialling { address: SocketAddrUnix, until: Time },
    /// We said hello.
    Greeting { connection: Connection, until: Time },
    /// They called and have not said hello.
    Called { until: Time },
    /// Connected.
    Up(Box<Link>),
    /// Over, except for chunks that are being copied and for what had arrived.
    Ending {
        link: Box<Link>,
        reason: Reason,
        /// Whether the other side is known to copy no more.
        gone: bool,
        /// Whether what had arrived is still reported.
        drain: bool,
    },
}

impl Peer {
    /// The link of a connection that is up, or was.
    pub(super) fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Up(link) | State::Ending { link, .. } => Some(link),
            _ => None,
        }
    }

    /// What the other side may be copying under.
    pub(super) fn hazards(&self) -> Option<&Connection> {
        match &self.state {
            State::Ending { gone: true, .. } => None,
            _ => self.link().map(|link| &link.connection),
        }
    }

    /// When the handshake is given up.
    pub(super) fn until(&self) -> Option<Time> {
        match self.state {
            State::Dialling { until, .. }
            | State::Greeting { until, .. }
            | State::Called { until } => Some(until),
            State::Up(_) | State::Ending { .. } => None,
        }
    }

    /// Whether it waits for the other side's next packet.
    pub(super) fn is_talking(&self) -> bool {
        match &self.state {
            State::Up(link) => {
                !link.waiting.is_empty() || self.line.as_ref().is_some_and(Line::is_clogged)
            }
            State::Ending { .. } => false,
            _ => true,
        }
    }
}

/// A connection that was given up here, while the other side may still be copying.
#[derive(Debug)]
pub(super) struct Ghost {
    pub(super) id: PeerId,
    pub(super) line: Line,
    /// Kept open to stay watched.
    pub(super) _process: Option<OwnedFd>,
    pub(super) connection: Connection,
}
