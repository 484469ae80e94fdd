//! The daemon, and how it is looked after while it runs: administration, metrics, health.
//!
//! | module | what it holds |
//! |---|---|
//! | `daemon` | [`Daemon`]: arenas, engine, protocol server and administration together |
//! | `arena` | the memory of each tenant, from the configuration |
//! | `directory` | the directory of a socket, which must be safe |
//! | `signals` | SIGINT and SIGTERM |
//! | `observe` | what is looked at: store and its tiers, engine, protocol server, readiness |
//! | `admin` | the gRPC service `tranship.admin.v1.Admin`, its health, and its client |
//! | `metrics`, `http` | figures for Prometheus; `/metrics`, `/healthz`, `/readyz` |
//! | `socket` | UNIX sockets that replace stale ones and refuse live ones |
//! | `runtime` | the one thread that serves all this, apart from the data path |

pub(crate) mod admin;
mod arena;
mod daemon;
mod directory;
mod http;
mod metrics;
pub(crate) mod observe;
mod runtime;
pub(crate) mod signals;
mod socket;
mod tiers;

#[cfg(test)]
pub(crate) mod tests;

pub use daemon::{Daemon, Failed, StartError, TierInfo};
pub(crate) use observe::Observe;
pub(crate) use runtime::{Options, Running};
pub use tiers::TierError;
