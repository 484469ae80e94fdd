//! Looking after a daemon while it runs: administration, metrics, health, logs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`observe`] | what is looked at: store, engine, protocol server, readiness |
//! | [`admin`] | the gRPC service `tranship.admin.v1.Admin`, its health, and its client |
//! | [`metrics`], [`http`] | figures for Prometheus; `/metrics`, `/healthz`, `/readyz` |
//! | [`socket`] | UNIX sockets that replace stale ones and refuse live ones |
//! | [`runtime`] | the one thread that serves all this, apart from the data path |
//! | [`log`] | structured logs on standard error |

pub(crate) mod admin;
mod http;
pub(crate) mod log;
mod metrics;
pub(crate) mod observe;
mod runtime;
mod socket;

#[cfg(test)]
mod tests;

pub(crate) use observe::{Observe, RequestStats, ServerStats, SessionInfo};
pub(crate) use runtime::{Error, Options, Running, run};
