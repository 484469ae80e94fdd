//! libfabric, loaded at run time: nothing links against it, and a machine without it only lacks its providers (AWS's EFA
//! among them).
//!
//! libfabric exports a handful of functions, which [`Fabric`] has as they are (by [`Deref`] to the generated
//! [`Symbols`]); everything else is calls through tables that objects carry, here as documented `unsafe fn`s. Handles,
//! lifetimes and errors stay those of C: most functions return `0` or a negative error (`-FI_EAGAIN`), and
//! `-FI_ENOSYS` where the provider has no entry for it.
//!
//! The bindings are of libfabric 1.17, and valid for 1.15 and later, 2.x too: structures grow at the end, and what a
//! program is given follows from the version it asks for. Ask for [`Fabric::api_version`], which is never above 1.17
//! ([`API_NEWEST`]): later ones fill in more than these structures have.

#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::undocumented_unsafe_blocks,
    reason = "made by scripts/bindings"
)]
mod bindings;
mod completions;
mod messages;
mod objects;
pub mod providers;
mod regions;
mod rma;
mod signals;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_int};
use std::fmt;
use std::ops::Deref;
use std::path::Path;

pub use bindings::*;
pub use tranship_dylib::{LoadError, Source};

/// The name that [`Fabric::load`] asks the dynamic linker for.
pub const LIBRARY: &str = "libfabric.so.1";
/// The first release that these bindings are valid for.
pub const API_OLDEST: u32 = FI_VERSION(1, 15);
/// The release that they were made from.
pub const API_NEWEST: u32 = FI_VERSION(1, 17);
/// An address that is not known (`FI_ADDR_UNSPEC`), or any.
pub const FI_ADDR_UNSPEC: fi_addr_t = fi_addr_t::MAX;
/// A place in a table of addresses that could not be filled (`FI_ADDR_NOTAVAIL`).
pub const FI_ADDR_NOTAVAIL: fi_addr_t = fi_addr_t::MAX;
/// A region whose key does not fit into 64 bits, or is not made yet (`FI_KEY_NOTAVAIL`).
pub const FI_KEY_NOTAVAIL: u64 = u64::MAX;

/// What a provider answers that has no entry for a function.
const NO_ENTRY: c_int = -FI_ENOSYS;

/// A version as libfabric writes it.
#[expect(non_snake_case, reason = "the name of the macro")]
#[must_use]
pub const fn FI_VERSION(major: u32, minor: u32) -> u32 {
    major << 16 | minor
}

/// libfabric. It stays in the process once it is loaded.
pub struct Fabric {
    symbols: Symbols,
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric").finish_non_exhaustive()
    }
}

/// The exported functions; they panic where [`Fabric::load`] did not ask for them and the library has none.
impl Deref for Fabric {
    type Target = Symbols;

    fn deref(&self) -> &Symbols {
        &self.symbols
    }
}

impl Fabric {
    /// Loads the library of this machine.
    ///
    /// # Errors
    /// It is not installed, cannot be loaded, is not what it should be, or too old: [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        Self::load_from(Path::new(LIBRARY))
    }

    /// Loads the library of a path.
    ///
    /// # Errors
    /// As [`Fabric::load`].
    pub fn load_from(library: &Path) -> Result<Self, LoadError> {
        let source = Source {
            library,
            packages: "libfabric1 (Debian, Ubuntu) or libfabric (RHEL)",
            oldest: "libfabric 1.15",
        };
        let kept = signals::Kept::now();
        let opened = source.open();
        drop(kept);
        let opened = opened?;
        // SAFETY: the library stays loaded, and the signatures are those of its headers.
        let symbols =
            unsafe { Symbols::from_library(opened) }.map_err(|_| source.without("symbols"))?;
        let missing = [
            ("fi_getinfo", symbols.fi_getinfo.is_ok()),
            ("fi_freeinfo", symbols.fi_freeinfo.is_ok()),
            ("fi_dupinfo", symbols.fi_dupinfo.is_ok()),
            ("fi_fabric", symbols.fi_fabric.is_ok()),
            ("fi_strerror", symbols.fi_strerror.is_ok()),
            ("fi_version", symbols.fi_version.is_ok()),
            ("fi_tostr", symbols.fi_tostr.is_ok()),
        ]
        .into_iter()
        .find_map(|(name, there)| (!there).then_some(name));
        if let Some(symbol) = missing {
            return Err(source.without(symbol));
        }
        let fabric = Self { symbols };
        match fabric.version() {
            version if version < API_OLDEST => Err(source.too_old(release(version))),
            _ => Ok(fabric),
        }
    }

    /// The library's own version.
    #[must_use]
    pub fn version(&self) -> u32 {
        // SAFETY: the function takes nothing.
        unsafe { self.fi_version() }
    }

    /// The version to ask `fi_getinfo` for: the library's, but none above what these bindings know.
    #[must_use]
    pub fn api_version(&self) -> u32 {
        self.version().min(API_NEWEST)
    }

    /// What an error means, of either sign.
    #[must_use]
    pub fn error(&self, error: c_int) -> &'static CStr {
        // SAFETY: the function takes any value and returns a string of the library, which stays loaded.
        unsafe { CStr::from_ptr(self.fi_strerror(error.abs())) }
    }

    /// `fi_allocinfo`: an entry with all its parts, to be filled in as a hint; to be freed by `fi_freeinfo`. Null if
    /// memory is out.
    #[must_use]
    pub fn allocinfo(&self) -> *mut fi_info {
        // SAFETY: null asks for a new one.
        unsafe { self.fi_dupinfo(std::ptr::null()) }
    }
}

/// A version in words.
#[must_use]
pub fn release(version: u32) -> String {
    format!("{}.{}", version >> 16, version & 0xffff)
}
