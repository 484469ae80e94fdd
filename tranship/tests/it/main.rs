//! The built binary, as its users meet it.

mod cli;
mod common;
mod crash;
mod daemon;
mod replay_chaos;
mod tcp;
mod tiers;
