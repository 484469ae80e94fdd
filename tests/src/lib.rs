//! What the tests that span crates have in common.

pub mod world;
