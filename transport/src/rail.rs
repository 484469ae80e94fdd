//! What an engine has to tell of its rails, and of the paths to its peers.

use std::time::Duration;

use crate::address::Kind;

/// Something worth knowing: what it is called, and what it is.
pub type Fact = (&'static str, String);

/// A port of a NIC or a domain of libfabric that payload is moved over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rail {
    /// The fabric that has it.
    pub fabric: Kind,
    /// What the fabric calls it: `mlx5_0:1`, `tcp;ofi_rxm eth0`.
    pub name: String,
    /// How it is used: address, MTU, provider, and why these.
    pub facts: Vec<Fact>,
    /// Why it is down, where it is.
    pub down: Option<String>,
}

/// A rail of this side and one of a peer's, with a channel between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Path {
    /// The rail of this side, as [`Rail::name`] has it.
    pub rail: String,
    /// How it is used: where it leads, and what the two sides agreed on.
    pub facts: Vec<Fact>,
    /// What it is now.
    pub state: PathState,
    /// How long the last empty write took until the peer's side had acknowledged it. `None` until one
    /// got through.
    pub round_trip: Option<Duration>,
    /// How fast it is taken to be, bytes a second: learnt from what went through. `None` until enough
    /// did.
    pub bytes_per_second: Option<f64>,
    /// Messages that it was given. Those that fit on no rail, or are better off there, go over TCP.
    pub messages: u64,
}

/// What a path is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathState {
    /// Both sides are making their channels, or try whether something gets through.
    Joining,
    /// In use.
    Up,
    /// Out of use, and why; it is tried again.
    Down(String),
}
