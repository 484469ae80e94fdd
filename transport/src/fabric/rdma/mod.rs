//! What all fabrics of one-sided hardware share: everything but the hardware.
//!
//! A `Device` is one rail: a port of a NIC over verbs, or a libfabric domain. This
//! module makes a [`Fabric`](super::Fabric) of one or more of them, and of a connection over TCP to
//! each peer, `tcp::Control`.
//!
//! - *Control.* Peers are dialled, prove that they know the token and are noticed dead over TCP.
//!   Long messages travel there, short ones by rail. So does payload when no rail is left: that is announced, and ends when a
//!   rail is back.
//! - *Paths.* A path is a rail of this side and one of the peer's with a channel between
//!   them. With `n` rails here and `m` there, `max(n, m)` paths use all of them. A path that fails is
//!   tried again.
//! - *Keys.* The key in a window's descriptor is 64 random bits. Whoever shows it gets, for its own
//!   channels alone, the key that the hardware wants; so that one is bound to a peer and a window, and
//!   bounds are known before anything is posted: bad input breaks no channel.
//! - *Fences.* Who revokes a window asks all who have opened it to stop, and they say when nothing of
//!   theirs is under way. From one that does not answer in time the channels are taken away.
//! - *Failover.* Whoever finds a path broken takes its channel down and says so, with the number of
//!   immediates that came through it; so does the other side then. Nothing that was posted on the
//!   path can land any more, and both know which immediates were delivered: what was not is done
//!   again on another path, once.
//! - *Order.* An immediate is posted behind its payload where both take the same channel and that
//!   keeps order, else once all of the payload has been acknowledged.

mod config;
pub(super) mod device;
mod exposing;
mod fabric;
mod failing;
#[cfg(any(feature = "fuzzing", all(not(loom), test)))]
pub(crate) mod fuzzing;
mod hub;
mod joining;
mod link;
mod mail;
#[cfg(feature = "conformance")]
pub mod null;
mod op;
mod opening;
mod path;
mod posting;
mod report;
#[cfg(any(feature = "conformance", feature = "fuzzing", all(not(loom), test)))]
pub mod sim;
mod words;

pub(super) use config::Settings;
pub(super) use fabric::Rdma;
pub(super) use mail::RAIL_MAX;

pub(super) use device::{
    ChannelId, Completion, Device, Exposing, ExposureId, Keys, Part, Post, Room, Token, Traits,
};
