//! The native part of the Python package: a thin layer over `tranship-kv` and the cache's client.
//!
//! Every call that may wait lets go of the interpreter lock. A handle that came along into a forked child
//! raises; nothing of it is touched there.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 extracts arguments by value")]

mod buffer;
mod cache;
mod dlpack;
mod engine;
mod error;
mod events;
mod export;
mod identity;
mod keys;
mod lease;
mod memory;
mod queue;
mod region;
mod results;
mod room;
mod transfer;
mod window;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", module.py().get_type::<error::Error>())?;
    module.add_class::<identity::Identity>()?;
    module.add_class::<keys::Keys>()?;
    module.add_class::<memory::Pages>()?;
    module.add_class::<memory::Selected>()?;
    module.add_class::<memory::Segments>()?;
    module.add_class::<results::LoadResult>()?;
    module.add_class::<results::StoreResult>()?;
    module.add_class::<results::Loaded>()?;
    module.add_class::<results::Stored>()?;
    module.add_class::<results::Hit>()?;
    module.add_class::<cache::Cache>()?;
    module.add_class::<cache::Guard>()?;
    module.add_class::<lease::Lease>()?;
    module.add_class::<queue::Queue>()?;
    module.add_class::<queue::Filling>()?;
    module.add_class::<queue::Done>()?;
    module.add_class::<lease::Block>()?;
    module.add_class::<room::Room>()?;
    module.add_class::<room::NoRoom>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<region::Region>()?;
    module.add_class::<region::Slice>()?;
    module.add_class::<window::Window>()?;
    module.add_class::<window::Remote>()?;
    module.add_class::<transfer::Transfer>()?;
    module.add_class::<transfer::Outcome>()?;
    module.add_function(wrap_pyfunction!(cache::connect, module)?)
}
