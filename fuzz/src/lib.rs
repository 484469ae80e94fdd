//! What the fuzz targets do: each takes any bytes, feeds them to a decoder that reads what others
//! wrote, and panics when a promise is broken. See `docs/testing.md`.

#![warn(missing_docs)]

mod cache;
mod nvme;
mod object;
mod pages;
mod seeds;
mod text;

pub use cache::{cache_reply, cache_request, identity};
pub use nvme::nvme_image;
pub use object::{codec, object_manifest, object_pack};
pub use pages::pages;
pub use seeds::seeds;
pub use text::{config, descriptor, trace, units};
pub use tranship_transport::fuzzing::{rails, shm, tcp};
