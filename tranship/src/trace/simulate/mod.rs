//! Policies over a trace.

pub mod cache;
pub mod opt;
