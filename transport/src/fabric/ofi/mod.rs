//! RDMA through libfabric: EFA, Slingshot, and whatever else has a provider that writes into a peer's
//! memory and delivers an immediate (`fi_rma(3)`, `FI_REMOTE_CQ_DATA`).
//!
//! The library is loaded when the fabric is opened. A rail is one domain (`fi_domain(3)`) of one
//! provider; a channel is two endpoints of it, one for each lane, so that taking a channel down is
//! closing them: nothing is read or written through them afterwards. Everything else is what all
//! fabrics of rails (`fabric::rdma`) have in common.
//!
//! - *Order.* Most of these networks have none. Where a provider promises order for writes of any
//!   length (`FI_ORDER_WAW`, `max_order_waw_size`), immediates follow their payload at once.
//! - *Done means landed.* Writes ask for `FI_DELIVERY_COMPLETE`.
//! - *Keys.* An exposure is a registration of its own, with a random key where the provider lets us
//!   choose one.
//! - *Addresses.* Offsets or virtual addresses, as `mr_mode` says.

mod channel;
mod config;
mod device;
mod domain;
mod info;
mod letters;
mod near;
mod object;
mod pool;

pub use config::Config;
