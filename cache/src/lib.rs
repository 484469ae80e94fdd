//! Tiered KV-block cache.
//!
//! A *block* is the KV of some tokens, addressed by content: `(key, identity) → bytes + checksum`.
//! The in-memory heart is here; it does no I/O, starts no thread and reads no clock.
//!
//! | module | what it holds |
//! |---|---|
//! | [`key`], [`lineage`] | 128-bit block keys, and the prefix chain that makes them |
//! | [`identity`] | what makes two KV caches interchangeable |
//! | [`arena`] | one tenant's memory and the extents handed out of it |
//! | [`block`] | typestates: [`Reserved`] → resident → [`Lease`] |
//! | [`policy`] | which block leaves when room is needed |
//! | [`tier`], [`catalog`] | where blocks live |
//! | [`mover`] | moves blocks between memory and the tiers below |
//! | [`store`] | tenants and scopes; everything a daemon serves |
//! | [`events`], [`stats`] | what happened, and how much of it |
//! | [`error`], [`limits`], [`time`] | shared vocabulary |

#![deny(unsafe_code)]

pub mod arena;
pub mod block;
pub mod catalog;
pub mod client;
pub mod error;
pub mod events;
pub mod identity;
pub mod key;
pub mod limits;
pub mod lineage;
pub mod mover;
pub mod policy;
pub mod server;
pub mod stats;
pub mod store;
mod sync;
pub mod tier;
pub mod time;
pub mod wire;

pub use block::{Lease, Reserved};
pub use error::Error;
pub use identity::{Identity, IdentityId};
pub use key::Key;
pub use lineage::{Chain, Link};
pub use store::{Scope, Store, Tenant};
pub use time::Millis;
