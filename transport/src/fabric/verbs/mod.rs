//! RDMA through libibverbs: InfiniBand and RoCE.
//!
//! The library is loaded when the fabric is opened. A rail is one active port of a device; a channel
//! is two reliable connections (RC queue pairs), one for each lane. Everything else is what all
//! fabrics of rails (`fabric::rdma`) have in common.
//!
//! - *Queues.* One send queue for each lane of each peer; of what is posted at once only the last
//!   request is signalled. A completion queue takes as many queue pairs as it has entries for: it
//!   cannot overrun.
//! - *Immediates.* They are received through one shared receive queue. Each lane of a peer has a
//!   budget of them; the receiver writes into the sender's memory how many it has taken. Nobody sends
//!   what there is no receive for, so that nothing is sent twice for want of one (RNR).
//! - *Keys.* An exposure is a memory window of type 2, bound to the one queue pair that may use it;
//!   where the device has none, or the memory is a device's, a registration of its own. (InfiniBand
//!   specification 1.4, 10.6.7.2.)
//! - *Fences.* A channel is taken down by destroying its queue pairs, which returns once the hardware
//!   has let go of them.
//! - *Connections.* Packet sequence numbers are random; which address, path and size of packets are
//!   used is chosen from what the port has, and said in the log.

mod buffers;
mod completions;
mod config;
mod cover;
mod device;
mod domain;
#[cfg(feature = "conformance")]
mod door;
mod exposure;
mod messages;
mod path;
#[cfg(feature = "conformance")]
mod played;
mod port;
mod queue;
mod registration;
mod word;

pub use config::Config;
#[cfg(feature = "conformance")]
pub use door::{Door, Place};
