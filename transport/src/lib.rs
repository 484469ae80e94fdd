//! One-sided transport.

pub mod address;
pub mod checksum;
pub mod copy;
pub mod fabric;
pub mod immediate;
pub mod memory;
pub mod outcome;
pub mod time;
pub mod window;
