//! Ways in for the fuzz targets of `fuzz/`: decoders and state machines that are fed by peers and
//! are private otherwise. Not part of the interface.
//!
//! Each takes any bytes and panics when a promise is broken.

/// The shared memory fabric.
pub mod shm {
    pub use crate::fabric::shm::fuzzing::{packet, packet_seeds, ring, stranger, table};
}

/// The tcp fabric.
pub mod tcp {
    pub use crate::fabric::tcp::fuzzing::{frame, greeting, layout, seeds, stranger};
}

/// Fabrics of rails.
pub mod rails {
    pub use crate::fabric::rdma::fuzzing::{seeds, stranger, word};
}
