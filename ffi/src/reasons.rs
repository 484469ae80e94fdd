//! Why single results of a call are not good.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

thread_local! {
    static REASONS: RefCell<Vec<CString>> = RefCell::default();
}

/// Keeps the reasons of the results of one call, empty for those that need none.
pub(crate) fn keep<'a>(reasons: impl IntoIterator<Item = &'a str>) {
    let text = |reason: &str| CString::new(reason.replace('\0', "\u{fffd}")).unwrap_or_default();
    let reasons: Vec<CString> = reasons.into_iter().map(text).collect();
    // While a thread ends nobody is left to ask.
    let _ = REASONS.try_with(|kept| kept.replace(reasons));
}

/// Why the `index`-th result of the last call on this thread that told results of stores or jobs is as it is, and
/// what to do: one line. Never NULL; empty when there is nothing to say. Good until the next such call
/// on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_last_reason(index: usize) -> *const c_char {
    let at = |kept: &RefCell<Vec<CString>>| kept.borrow().get(index).map(|text| text.as_ptr());
    REASONS.try_with(at).ok().flatten().unwrap_or(c"".as_ptr())
}
