//! The built binary, as its users meet it.

mod cli;
mod common;
mod crash;
mod daemon;
mod rdma;
mod replay_chaos;
mod tcp;
mod tiers;
