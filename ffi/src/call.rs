//! The one way in.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::{Failure, Result, tranship_status_t};

/// Does what a call does; a panic becomes a status.
///
/// Nothing that a body leaves half done is seen again: handles that it holds are shared and locked, and
/// a lock that a panic left is taken all the same by those whose state it cannot spoil.
pub(crate) fn call(body: impl FnOnce() -> Result) -> tranship_status_t {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => tranship_status_t::TRANSHIP_OK,
        Ok(Err(failure)) => failure.tell(),
        Err(panic) => internal(panic).tell(),
    }
}

fn internal(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
        .to_owned();
    // A payload that panics when it is dropped would get past us.
    std::mem::forget(panic);
    Failure::new(
        tranship_status_t::TRANSHIP_INTERNAL,
        format!("a defect of libtranship, please report it: {text}"),
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::status::tranship_last_error;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    fn last() -> String {
        // SAFETY: a text of this thread, and no call fails meanwhile.
        unsafe { CStr::from_ptr(tranship_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn no_panic_gets_out() {
        assert_eq!(call(|| panic!("oh {}", 1)), tranship_status_t::TRANSHIP_INTERNAL);
        assert_eq!(last(), "a defect of libtranship, please report it: oh 1");
        let bomb = || std::panic::panic_any(Bomb);
        assert_eq!(call(bomb), tranship_status_t::TRANSHIP_INTERNAL);
        assert_eq!(call(|| Ok(())), tranship_status_t::TRANSHIP_OK);
        assert!(last().ends_with("no text"), "what went well leaves the text alone");
        assert_eq!(call(|| Err(Failure::invalid("a\0b"))), tranship_status_t::TRANSHIP_INVALID);
        assert_eq!(last(), "a\u{fffd}b");
    }
}
