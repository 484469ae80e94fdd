//! What every call answers.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use tranship_cache::client;
use tranship_cache::identity::IdentityError;
use tranship_cache::wire::FaultCode;
use tranship_transport::memory::MemoryError;
use tranship_transport::{
    BarrierError, BuildError, CloseError, CountError, CountersExhausted, JoinError, NotFenced,
    Outcome, PagesError, PeerError, PlanError, RangeError, Reason, RegionError, RevokeError,
    SubmitError, WatchError, WatchTimeout, WindowError,
};

/// How a call went. The text of what went wrong is in tranship_last_error().
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tranship_status_t {
    /// Well.
    TRANSHIP_OK = 0,
    /// An argument is NULL, out of range, misaligned, or no text in UTF-8.
    TRANSHIP_INVALID = 1,
    /// What was given is no handle, or one of another kind.
    TRANSHIP_BAD_HANDLE = 2,
    /// The handle was closed before, or is being closed.
    TRANSHIP_CLOSED = 3,
    /// The handle is of the process that this one was forked from. Open another; there is nothing to
    /// close here.
    TRANSHIP_FORKED = 4,
    /// The other side, or the caller, was made for another version.
    TRANSHIP_VERSION = 5,
    /// This machine, this fabric or this release cannot do it.
    TRANSHIP_UNSUPPORTED = 6,
    /// The buffer is too small; nothing was lost, and the length needed was told.
    TRANSHIP_TOO_SMALL = 7,
    /// It did not happen in time.
    TRANSHIP_TIMEOUT = 8,
    /// A limit is reached; try again when something has ended or was closed.
    TRANSHIP_FULL = 9,
    /// Nobody answers there.
    TRANSHIP_UNREACHABLE = 10,
    /// The other side went away during the call; the next call connects again.
    TRANSHIP_DISCONNECTED = 11,
    /// The other side refused.
    TRANSHIP_REFUSED = 12,
    /// The token or secret is wrong, or the right is not granted.
    TRANSHIP_DENIED = 13,
    /// The transfer ended, and no byte of it moved.
    TRANSHIP_REJECTED = 14,
    /// The transfer was stopped: some bytes may have moved, no more will.
    TRANSHIP_FENCED = 15,
    /// The transfer ended without proof that no more bytes will move: leave its pages alone.
    TRANSHIP_LOST = 16,
    /// It could not be proven in time that no byte moves any more. The handle stays open: leave its
    /// memory alone and close it again.
    TRANSHIP_NOT_FENCED = 17,
    /// Not there, or not there yet: a miss.
    TRANSHIP_NOT_READY = 18,
    /// The bytes do not match their checksum: a miss. The buffer must not be used.
    TRANSHIP_CORRUPT = 19,
    /// No memory, or not of that kind.
    TRANSHIP_NO_MEMORY = 20,
    /// The system refused a descriptor or a thread.
    TRANSHIP_SYSTEM = 21,
    /// Another thread is in a call on this handle that takes it alone.
    TRANSHIP_BUSY = 22,
    /// A defect of the library; please report it with its text.
    TRANSHIP_INTERNAL = 23,
}

use tranship_status_t as Status;

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    text: String,
}

pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Status::TRANSHIP_INVALID, text)
    }

    fn of(status: Status, error: &impl ToString) -> Self {
        Self::new(status, error.to_string())
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// Leaves the text for whoever asks.
    pub(crate) fn tell(self) -> Status {
        // What follows a NUL would be lost.
        let text = CString::new(self.text.replace('\0', "\u{fffd}")).unwrap_or_default();
        // While a thread ends nobody is left to ask.
        let _ = LAST.try_with(|last| last.replace(text));
        self.status
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What went wrong in the last call on this thread that failed, and what to do: one line. Never
/// NULL; empty when none failed. Good until the next call that fails on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_last_error() -> *const c_char {
    // While a thread ends there is nothing left to tell.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

pub(crate) fn of_reason(reason: Reason) -> Status {
    match reason {
        Reason::Deadline => Status::TRANSHIP_TIMEOUT,
        Reason::Unreachable | Reason::Unresolved | Reason::Foreign => Status::TRANSHIP_UNREACHABLE,
        Reason::PeerGone => Status::TRANSHIP_DISCONNECTED,
        Reason::Denied | Reason::Forged | Reason::Unauthorised => Status::TRANSHIP_DENIED,
        Reason::Version => Status::TRANSHIP_VERSION,
        Reason::Unsupported => Status::TRANSHIP_UNSUPPORTED,
        Reason::Full => Status::TRANSHIP_FULL,
        Reason::Closed => Status::TRANSHIP_CLOSED,
        Reason::OutOfBounds
        | Reason::TooLong
        | Reason::Overlapping
        | Reason::Uneven
        | Reason::OtherEngine => Status::TRANSHIP_INVALID,
        _ => Status::TRANSHIP_REFUSED,
    }
}

/// A transfer that was waited for.
pub(crate) fn of_outcome(outcome: Outcome) -> Result {
    let status = match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Rejected(_) => Status::TRANSHIP_REJECTED,
        Outcome::Fenced(_) => Status::TRANSHIP_FENCED,
        Outcome::Lost(_) => Status::TRANSHIP_LOST,
    };
    Err(Failure::new(status, format!("transfer {outcome}")))
}

macro_rules! failures {
    ($($error:ty => $status:ident,)*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(Status::$status, &error)
            }
        })*
    };
}

failures! {
    BarrierError => TRANSHIP_TIMEOUT,
    BuildError => TRANSHIP_SYSTEM,
    CloseError => TRANSHIP_NOT_FENCED,
    CountError => TRANSHIP_TIMEOUT,
    CountersExhausted => TRANSHIP_FULL,
    IdentityError => TRANSHIP_INVALID,
    MemoryError => TRANSHIP_NO_MEMORY,
    NotFenced => TRANSHIP_NOT_FENCED,
    PagesError => TRANSHIP_INVALID,
    PlanError => TRANSHIP_INVALID,
    RangeError => TRANSHIP_INVALID,
    RevokeError => TRANSHIP_NOT_FENCED,
    SubmitError => TRANSHIP_FULL,
    WatchError => TRANSHIP_INVALID,
    WatchTimeout => TRANSHIP_TIMEOUT,
    std::io::Error => TRANSHIP_SYSTEM,
}

impl From<RegionError> for Failure {
    fn from(error: RegionError) -> Self {
        let status = match &error {
            RegionError::Memory(_) => Status::TRANSHIP_NO_MEMORY,
            _ => Status::TRANSHIP_UNSUPPORTED,
        };
        Self::of(status, &error)
    }
}

impl From<WindowError> for Failure {
    fn from(error: WindowError) -> Self {
        let status = match &error {
            WindowError::Full { .. } => Status::TRANSHIP_FULL,
            WindowError::Closed => Status::TRANSHIP_CLOSED,
            WindowError::Fabric(_) => Status::TRANSHIP_UNSUPPORTED,
            _ => Status::TRANSHIP_INVALID,
        };
        Self::of(status, &error)
    }
}

fn of_peer(error: &PeerError) -> Status {
    match error {
        PeerError::Refused { why, .. } => of_reason(*why),
        PeerError::Silent { .. } => Status::TRANSHIP_TIMEOUT,
        _ => Status::TRANSHIP_UNSUPPORTED,
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::of(of_peer(&error), &error)
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let status = match &error {
            JoinError::Peer(error) => of_peer(error),
            _ => Status::TRANSHIP_INVALID,
        };
        Self::of(status, &error)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        use client::Error as E;
        let status = match &error {
            E::Engine(_) => Status::TRANSHIP_SYSTEM,
            E::Unreachable { error, .. } => of_peer(error),
            E::Disconnected { .. } => Status::TRANSHIP_DISCONNECTED,
            E::Backoff { .. } => Status::TRANSHIP_UNREACHABLE,
            E::Timeout { .. } => Status::TRANSHIP_TIMEOUT,
            E::NotSent { outcome, .. } => {
                outcome.reason().map_or(Status::TRANSHIP_INTERNAL, of_reason)
            }
            E::Refused(fault) => match fault.code {
                FaultCode::Version => Status::TRANSHIP_VERSION,
                FaultCode::Denied => Status::TRANSHIP_DENIED,
                FaultCode::Limit => Status::TRANSHIP_FULL,
                _ => Status::TRANSHIP_REFUSED,
            },
            E::Malformed { .. } | E::Mismatched { .. } | E::Arena(_) => Status::TRANSHIP_VERSION,
            E::Identity(_) => Status::TRANSHIP_INVALID,
            E::Memory(_) => Status::TRANSHIP_NO_MEMORY,
            E::NotFenced(_) => Status::TRANSHIP_NOT_FENCED,
            E::Counters(_) => Status::TRANSHIP_FULL,
            _ => Status::TRANSHIP_REFUSED,
        };
        Self::of(status, &error)
    }
}

impl From<client::ReadError> for Failure {
    fn from(error: client::ReadError) -> Self {
        use client::ReadError as E;
        let status = match &error {
            E::NotReady { .. } => Status::TRANSHIP_NOT_READY,
            E::Length { .. } => Status::TRANSHIP_INVALID,
            E::Corrupt { .. } => Status::TRANSHIP_CORRUPT,
            E::Staging { .. } => Status::TRANSHIP_NO_MEMORY,
            E::Transfer { outcome, .. } => {
                outcome.reason().map_or(Status::TRANSHIP_INTERNAL, of_reason)
            }
            _ => Status::TRANSHIP_INTERNAL,
        };
        Self::of(status, &error)
    }
}
