//! Barriers.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use tranship_transport::Invitation;

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::{self, Out};
use crate::status::{Failure, Result, tranship_status_t};

/// A meeting of engines: nobody goes on before everybody has come.
pub struct tranship_barrier_t {
    _opaque: [u8; 0],
}

/// The longest invitation that is looked at, bytes.
const INVITATION_BYTES_MAX: usize = 4 << 20;
/// Others that a barrier has at most.
const OTHERS_MAX: usize = u16::MAX as usize;

/// What the handle stands for.
pub struct Barrier {
    barrier: Mutex<tranship_transport::Barrier>,
}

impl Barrier {
    /// A wait takes it alone.
    fn take(&self) -> Result<MutexGuard<'_, tranship_transport::Barrier>> {
        match self.barrier.try_lock() {
            Ok(barrier) => Ok(barrier),
            Err(TryLockError::Poisoned(broken)) => Ok(PoisonError::into_inner(broken)),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                tranship_status_t::TRANSHIP_BUSY,
                "another thread is in a call on this barrier; one thread at a time uses it",
            )),
        }
    }
}

/// Opens a barrier of this engine and `others` more. Each member opens its own, hands its invitation to
/// all, and joins the others before the first round.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_barrier_open(
    engine: *mut tranship_engine_t,
    others: usize,
    barrier: *mut *mut tranship_barrier_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(barrier, "barrier")?;
        let engine = handle::get::<Engine>(engine)?;
        if others > OTHERS_MAX {
            return Err(Failure::invalid(format!(
                "a barrier with {others} others: at most {OTHERS_MAX}"
            )));
        }
        let barrier = tranship_transport::Barrier::new(&engine.engine, others)?;
        out.set(handle::open(Barrier { barrier: Mutex::new(barrier) })?);
        Ok(())
    })
}

/// What the other members need, the same for all: bytes (a JSON text) to be handed over by any channel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_barrier_invitation(
    barrier: *mut tranship_barrier_t,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let object = handle::get::<Barrier>(barrier)?;
        let invitation = object.take()?.invitation();
        let bytes = serde_json::to_vec(&invitation)
            .map_err(|error| Failure::invalid(format!("an invitation: {error}")))?;
        output::bytes(&bytes, buffer, capacity, len)
    })
}

/// Adds a member by its invitation, unless it is one already or this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_barrier_join(
    barrier: *mut tranship_barrier_t,
    invitation: *const u8,
    invitation_len: usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let object = handle::get::<Barrier>(barrier)?;
        if invitation_len > INVITATION_BYTES_MAX {
            let text = format!(
                "an invitation of {invitation_len} bytes, more than {INVITATION_BYTES_MAX}"
            );
            return Err(Failure::invalid(text));
        }
        let bytes = input::bytes(invitation, invitation_len, "invitation")?;
        let invitation: Invitation = serde_json::from_slice(bytes)
            .map_err(|error| Failure::invalid(format!("no invitation to a barrier: {error}")))?;
        Ok(object.take()?.join(&invitation)?)
    })
}

/// Comes to the barrier and waits until all others have come. After TRANSHIP_TIMEOUT the round is not
/// over: the next call goes on with it.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_barrier_wait(
    barrier: *mut tranship_barrier_t,
    timeout_us: u64,
) -> tranship_status_t {
    call(|| {
        let timeout = input::wait(timeout_us)?;
        let object = handle::get::<Barrier>(barrier)?;
        Ok(object.take()?.wait(timeout)?)
    })
}

/// Closes the barrier.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_barrier_close(barrier: *mut tranship_barrier_t) -> tranship_status_t {
    call(|| handle::close::<Barrier>(barrier).map(drop))
}
