//! A simulated network: deterministic, seeded, in virtual time, all in one process.
//!
//! [`Network`] is a set of ports (NICs). [`Network::provider`] makes one for an engine, of which one
//! more can pass for another fabric ([`Network::provider_as`]);
//! [`Network::clock`] is the time they all live in. Nothing happens by itself: whoever waits on the
//! clock steps every attached engine and, when none has work, lets the next event of the network
//! happen. Two runs with one seed and the same calls are the same run, which [`Network::trace`]
//! shows by its hash.
//!
//! What a port does is what a reliable, unordered NIC does: a payload travels as packets that land
//! apart and out of order; the *target* checks key, generation, bounds and access as each packet
//! lands; lost packets are sent again and duplicates dropped; a cancelled operation ends only when
//! the queue has been flushed and nothing of it is under way. A port has one line and two lanes: an
//! urgent packet waits for the one on the wire, never for the queue in bulk. [`Faults`] says what goes wrong and
//! how often, [`Action`] what happens on request or at a given time.
//!
//! Lock order: an engine's core, then the network's state. The clock holds neither while it steps
//! an engine.

mod census;
mod clock;
mod config;
mod faults;
mod key;
mod line;
mod link;
mod log;
mod network;
mod operation;
mod packet;
mod payload;
mod port;
mod queue;
mod slots;
mod state;
#[cfg(test)]
mod tests;

pub use census::Census;
pub use config::{Config, Mode};
pub use faults::{Action, Faults};
pub use log::{Entry, Happened, Trace};
pub use network::{Network, Port};
