//! The NVMe tier: blocks in a log of segments on a local device.

pub mod disk;
