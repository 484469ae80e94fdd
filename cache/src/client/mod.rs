//! The client: a typed way into a daemon's cache, over any fabric.
//!
//! ```no_run
//! use std::time::Duration;
//! use tranship_cache::client::Client;
//! use tranship_cache::identity::Geometry;
//! use tranship_cache::{Chain, Identity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().connect(&"shm:/run/user/0/tranship.sock".parse()?)?;
//! let identity = Identity::new("llama-3.1-8b", "main", "bf16", Geometry::default(), 16);
//! let mut chain = Chain::new(&identity);
//! let cache = client.cache(identity);
//!
//! let link = chain.push_tokens(&[1, 2, 3, 4]);
//! let bytes = vec![7; 1 << 20];
//! cache.store(&[(link, &bytes)])?;
//!
//! let found = cache.lookup(&[link.key])?;
//! let lease = cache.lease(&[link.key][..found.prefix], Duration::from_millis(20))?;
//! let mut into = vec![0; 1 << 20];
//! lease.copy_to(0, &mut into)?; // checked on the way
//! # Ok(())
//! # }
//! ```
//!
//! On one host blocks are read and filled in place, in a mapping of the daemon's arena. Over a
//! fabric that cannot map, the same calls pass blocks through staging memory of the client's
//! ([`Builder::staging`]), by one-sided reads of either side; [`Cache::fetch`] brings them straight
//! into memory of the caller's choice.
//!
//! One client may be used from many threads. When the daemon goes away, calls fail with
//! [`Error::Disconnected`] and the next one connects again; blocks held under the old session are
//! void, and say so.

mod arena;
mod calls;
mod connection;
pub mod daemon;
mod ends;
mod error;
mod fill;
mod lease;
mod staged;
mod staging;
mod subscription;
mod switch;

pub use calls::{Cache, Fetched, Found};
pub use connection::{Builder, Client};
pub use error::{Error, ReadError, StagingError};
pub use fill::{CommitFailed, Filled, Grant, Reservation, Stored};
pub use lease::{Lease, Result as BlockResult};
pub use subscription::Subscription;

pub use crate::store::Listed;
pub use crate::wire::Event;
