//! Transport.

pub mod memory;
