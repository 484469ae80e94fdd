//! Pages: lists of pieces of a region or window, described by runs, and the plans that pair two of
//! them.

mod cursor;
mod list;
#[cfg(any(test, feature = "conformance"))]
pub(crate) mod model;
mod plan;
#[cfg(all(test, not(loom)))]
mod tests;

pub use cursor::{Cursor, Piece};
pub use list::{Pages, PagesError, Run};
pub use plan::{Plan, PlanError};
