//! KV-reuse traces in the format of Mooncake's FAST'25 paper (Qin et al., "Mooncake: Trading More
//! Storage for Less Computation", USENIX FAST 2025): one JSON object a line,
//!
//! ```json
//! {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
//! ```
//!
//! `timestamp` is in milliseconds. A block is [`BLOCK_TOKENS`](crate::presets::BLOCK_TOKENS)
//! tokens; `hash_ids` has one entry for each block of the input, and two requests share an id
//! exactly when they share the whole prefix up to and including that block. The last block may be
//! partial: its id says so much of a prompt, not a full block, so it is never reused.

pub mod content;
mod error;
pub mod kinds;
pub mod plan;
pub(crate) mod random;
mod reader;
mod request;
pub mod simulate;
pub mod stats;
pub mod synth;

pub use error::{Error, Fault};
pub use reader::Reader;
pub use request::Request;
