//! Transfers under way, one by one.

use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, OnceLock};

use tranship_transport::{Outcome, Reason};

use crate::call::call;
use crate::handle;
use crate::input;
use crate::output::Out;
use crate::queue::{TRANSHIP_COMPLETION_TRANSFER, tranship_completion_t};
use crate::reason;
use crate::status::{Failure, tranship_status_t};

/// A transfer under way, for those who want to cancel it or to ask for it alone.
pub struct tranship_transfer_t {
    _opaque: [u8; 0],
}

/// All bytes are where they belong and visible there.
pub const TRANSHIP_OUTCOME_DONE: u32 = 0;
/// No byte moved and none will.
pub const TRANSHIP_OUTCOME_REJECTED: u32 = 1;
/// It was stopped. Some bytes may have moved, no more can.
pub const TRANSHIP_OUTCOME_FENCED: u32 = 2;
/// It cannot be proven that no more bytes will move: leave its pages alone.
pub const TRANSHIP_OUTCOME_LOST: u32 = 3;

/// What the handle stands for.
pub struct Transfer {
    pub(crate) transfer: Arc<tranship_transport::Transfer>,
    pub(crate) user_data: u64,
}

pub(crate) fn completion(user_data: u64, outcome: Outcome) -> tranship_completion_t {
    let word = match outcome {
        Outcome::Done => TRANSHIP_OUTCOME_DONE,
        Outcome::Rejected(_) => TRANSHIP_OUTCOME_REJECTED,
        Outcome::Fenced(_) => TRANSHIP_OUTCOME_FENCED,
        Outcome::Lost(_) => TRANSHIP_OUTCOME_LOST,
    };
    tranship_completion_t {
        user_data,
        kind: TRANSHIP_COMPLETION_TRANSFER,
        outcome: word,
        reason: reason::number(outcome.reason()),
        pages_free: u32::from(outcome.pages_are_free()),
        value: 0,
    }
}

/// A reason in words, such as "the peer is gone"; "none" for 0. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_reason_text(reason: u32) -> *const c_char {
    static TEXTS: OnceLock<Vec<CString>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| {
        let texts = Reason::ALL.iter().map(|reason| reason.text());
        texts.map(|text| CString::new(text).unwrap_or_default()).collect()
    });
    let text = match reason {
        0 => c"none",
        code => texts.get(code as usize - 1).map_or(c"unknown", CString::as_c_str),
    };
    CStr::as_ptr(text)
}

/// How the transfer ended, if it has: else TRANSHIP_NOT_READY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_transfer_poll(
    transfer: *mut tranship_transfer_t,
    end: *mut tranship_completion_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let end = Out::new(end, "end")?;
        let transfer = handle::get::<Transfer>(transfer)?;
        let outcome = transfer.transfer.outcome().ok_or_else(|| {
            Failure::new(tranship_status_t::TRANSHIP_NOT_READY, "the transfer is under way")
        })?;
        end.set(completion(transfer.user_data, outcome));
        Ok(())
    })
}

/// Waits for its end, which comes by its deadline, moving the engine on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_transfer_wait(
    transfer: *mut tranship_transfer_t,
    end: *mut tranship_completion_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let end = Out::new(end, "end")?;
        let transfer = handle::get::<Transfer>(transfer)?;
        end.set(completion(transfer.user_data, transfer.transfer.wait()));
        Ok(())
    })
}

/// As tranship_transfer_wait(), but no longer than `timeout_us`: TRANSHIP_TIMEOUT when it has not ended by then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_transfer_wait_for(
    transfer: *mut tranship_transfer_t,
    timeout_us: u64,
    end: *mut tranship_completion_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let end = Out::new(end, "end")?;
        let timeout = input::wait(timeout_us)?;
        let transfer = handle::get::<Transfer>(transfer)?;
        let outcome = transfer.transfer.wait_for(timeout).ok_or_else(|| {
            let text = format!("the transfer has not ended within {timeout:?}");
            Failure::new(tranship_status_t::TRANSHIP_TIMEOUT, text)
        })?;
        end.set(completion(transfer.user_data, outcome));
        Ok(())
    })
}

/// Asks that it end now. It has not ended when this returns.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_transfer_cancel(
    transfer: *mut tranship_transfer_t,
) -> tranship_status_t {
    call(|| {
        handle::get::<Transfer>(transfer)?.transfer.cancel();
        Ok(())
    })
}

/// Whether the pages on this side may be used for something else: at once for every outcome but
/// TRANSHIP_OUTCOME_LOST, and for that from when it is proven that nothing moves any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_transfer_fenced(
    transfer: *mut tranship_transfer_t,
    fenced: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let fenced = Out::new(fenced, "fenced")?;
        fenced.set(u32::from(handle::get::<Transfer>(transfer)?.transfer.fenced()));
        Ok(())
    })
}

/// Closes the handle. The transfer goes on.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_transfer_close(transfer: *mut tranship_transfer_t) -> tranship_status_t {
    call(|| handle::close::<Transfer>(transfer).map(drop))
}
