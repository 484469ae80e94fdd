//! Versions.

use std::ffi::{CStr, c_char};

use crate::call::call;
use crate::handle;
use crate::output::Out;
use crate::status::{Failure, tranship_status_t};

/// The version of this interface. It grows with every addition; what is there stays as it is.
pub const TRANSHIP_ABI_VERSION: u32 = 1;

const RELEASE: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(release) => release,
        Err(_) => panic!("a version has no NUL"),
    };

/// The version of the interface that the library has.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_abi_version() -> u32 {
    TRANSHIP_ABI_VERSION
}

/// The release the library is of, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn tranship_release() -> *const c_char {
    RELEASE.as_ptr()
}

/// Asks that the library have the interface that the caller was compiled for: call it once, with
/// TRANSHIP_ABI_VERSION. TRANSHIP_VERSION when the library is older.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_require(version: u32) -> tranship_status_t {
    call(|| {
        if (1..=TRANSHIP_ABI_VERSION).contains(&version) {
            return Ok(());
        }
        Err(Failure::new(
            tranship_status_t::TRANSHIP_VERSION,
            format!(
                "the program was compiled for version {version} of the interface, this library has \
                 1 to {TRANSHIP_ABI_VERSION}; install a newer libtranship"
            ),
        ))
    })
}

/// How many handles of this process are open, of all kinds: 0 when everything was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_open_handles(count: *mut usize) -> tranship_status_t {
    call(|| {
        // SAFETY: the caller's pointer, as the header asks.
        let count = unsafe { Out::new(count, "count") }?;
        count.set(handle::open_count());
        Ok(())
    })
}
