//! Transport.

pub mod checksum;
pub mod copy;
pub mod memory;
