//! Peers in this process, over libfabric's shm provider.
//!
//! That provider uses the memory of an endpoint of the same process in place, and goes on to do so when
//! the endpoint is closed (libfabric 1.17: `smr_map_to_region`). So channels between engines of one
//! process, which only tests have, are not closed: they are left as they are and never looked at again.
//! What they have in /dev/shm is removed when the process ends.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use super::channel::Channel;

/// The length of what [`process`] returns.
pub(super) const PROCESS_BYTES: usize = 16;

/// What is in /dev/shm.
static NAMES: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// A random name of this process.
pub(super) fn process() -> &'static [u8; PROCESS_BYTES] {
    static NAME: OnceLock<[u8; PROCESS_BYTES]> = OnceLock::new();
    NAME.get_or_init(|| {
        let mut name = [0; PROCESS_BYTES];
        // Without randomness everybody is somebody else.
        let _ = getrandom::fill(&mut name);
        name
    })
}

/// Leaves a channel as it is. What its endpoints have in /dev/shm is removed at the end.
pub(super) fn bury(channel: Channel) {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // SAFETY: the function does nothing but unlink files.
        unsafe { libc::atexit(sweep) };
    });
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    for queue in &channel.lanes {
        let text = String::from_utf8_lossy(&queue.name);
        let text = text.trim_end_matches('\0');
        let file = text.split_once("://").map_or(text, |(_, file)| file);
        names.extend(CString::new(format!("/{file}")));
    }
    let _ = ManuallyDrop::new(channel);
}

extern "C" fn sweep() {
    for name in NAMES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // SAFETY: a text that ends with a zero. Those that were closed are not there any more.
        unsafe { libc::shm_unlink(name.as_ptr()) };
    }
}
