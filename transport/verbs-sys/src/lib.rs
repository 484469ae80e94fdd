//! libibverbs, loaded at run time: nothing links against it, and a machine without it only lacks verbs.
//!
//! [`Verbs`] has the exported functions as they are (by [`Deref`] to the generated [`Symbols`]) and the *inline* ones of
//! `infiniband/verbs.h`, which are calls through the device's own table, as documented `unsafe fn`s. Handles, lifetimes
//! and errors stay those of C: functions that return a pointer return null and set `errno`, most others return `0` or an
//! `errno`, `poll_cq` a count.
//!
//! The bindings are of rdma-core 44. Structures that its functions fill grow at the end and carry sizes or masks, so any
//! release from 17 on will do; what came later ([`Verbs::reg_dmabuf_mr`] with 34, say) answers `EOPNOTSUPP` where it is
//! missing.

#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::all,
    non_snake_case,
    clippy::semicolon_if_nothing_returned,
    clippy::undocumented_unsafe_blocks,
    reason = "made by scripts/bindings"
)]
mod bindings;
pub mod devices;
mod gids;
mod inline;
mod memory;
pub mod port;
#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::fmt;
use std::ops::Deref;
use std::path::Path;

pub use bindings::*;
pub use gids::{Gid, GidType};
pub use tranship_dylib::{LoadError, Source};

/// The name that [`Verbs::load`] asks the dynamic linker for.
pub const LIBRARY: &str = "libibverbs.so.1";

/// libibverbs. It stays in the process once it is loaded.
pub struct Verbs {
    symbols: Symbols,
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbs").finish_non_exhaustive()
    }
}

/// The exported functions; they panic where [`Verbs::load`] did not ask for them and the library has none, which the
/// methods of [`Verbs`] do not.
impl Deref for Verbs {
    type Target = Symbols;

    fn deref(&self) -> &Symbols {
        &self.symbols
    }
}

/// Answers with the name of the first function that is missing.
macro_rules! first_missing {
    ($symbols:expr, $($name:ident)*) => {
        [$((stringify!($name), $symbols.$name.is_ok())),*]
            .into_iter()
            .find_map(|(name, there)| (!there).then_some(name))
    };
}

impl Verbs {
    /// Loads the library of this machine.
    ///
    /// # Errors
    /// It is not installed, cannot be loaded, or is not what it should be: [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        Self::load_from(Path::new(LIBRARY))
    }

    /// Loads the library of a path.
    ///
    /// # Errors
    /// As [`Verbs::load`].
    pub fn load_from(library: &Path) -> Result<Self, LoadError> {
        let source = Source {
            library,
            packages: "libibverbs1 and ibverbs-providers (Debian, Ubuntu) or libibverbs (RHEL)",
            oldest: "rdma-core 17",
        };
        let opened = source.open()?;
        // SAFETY: the library stays loaded, and the signatures are those of its headers.
        let symbols =
            unsafe { Symbols::from_library(opened) }.map_err(|_| source.without("symbols"))?;
        let missing = first_missing!(symbols,
            ibv_get_device_list ibv_free_device_list ibv_get_device_name ibv_get_device_guid
            ibv_open_device ibv_close_device ibv_query_device ibv_query_port ibv_query_gid ibv_query_pkey
            ibv_alloc_pd ibv_dealloc_pd ibv_reg_mr ibv_dereg_mr
            ibv_create_comp_channel ibv_destroy_comp_channel ibv_create_cq ibv_resize_cq ibv_destroy_cq
            ibv_get_cq_event ibv_ack_cq_events
            ibv_create_srq ibv_modify_srq ibv_query_srq ibv_destroy_srq
            ibv_create_qp ibv_modify_qp ibv_query_qp ibv_destroy_qp ibv_create_ah ibv_destroy_ah
            ibv_get_async_event ibv_ack_async_event ibv_fork_init
            ibv_wc_status_str ibv_event_type_str ibv_port_state_str ibv_node_type_str ibv_rate_to_mbps);
        match missing {
            Some(symbol) => Err(source.without(symbol)),
            None => Ok(Self { symbols }),
        }
    }

    /// What a status of a completion means.
    #[must_use]
    pub fn wc_status(&self, status: ibv_wc_status) -> &'static CStr {
        // SAFETY: the function takes any value and returns a string of the library, which stays loaded.
        unsafe { CStr::from_ptr(self.ibv_wc_status_str(status)) }
    }

    /// What an asynchronous event means.
    #[must_use]
    pub fn event_type(&self, event: ibv_event_type) -> &'static CStr {
        // SAFETY: the function takes any value and returns a string of the library, which stays loaded.
        unsafe { CStr::from_ptr(self.ibv_event_type_str(event)) }
    }
}
