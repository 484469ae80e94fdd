//! What comes in without having been asked for.

use tranship_transport::Incoming;

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::{self, Out};
use crate::peer::tranship_peer_t;
use crate::reason;
use crate::status::{Failure, Result, tranship_status_t};

/// A message.
pub const TRANSHIP_INCOMING_MESSAGE: u32 = 0;
/// A connection is up.
pub const TRANSHIP_INCOMING_CONNECTED: u32 = 1;
/// A connection is gone. All messages that came over it were delivered before.
pub const TRANSHIP_INCOMING_DISCONNECTED: u32 = 2;

/// What came in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_incoming_t {
    /// From whom; answers go there.
    pub from: tranship_peer_t,
    /// Of a message: its length, bytes.
    pub len: u64,
    /// TRANSHIP_INCOMING_*.
    pub kind: u32,
    /// Why a connection is gone: TRANSHIP_REASON_*.
    pub reason: u32,
}

/// Takes the next of what came in, waiting for it and moving the engine on; TRANSHIP_TIMEOUT when nothing came.
/// A message is put into `buffer`. After TRANSHIP_TOO_SMALL it is kept, and `incoming` tells its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_recv(
    engine: *mut tranship_engine_t,
    incoming: *mut tranship_incoming_t,
    buffer: *mut u8,
    capacity: usize,
    timeout_us: u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::new(incoming, "incoming")?;
        input::check_bytes(buffer, capacity, "buffer")?;
        let timeout = input::wait(timeout_us)?;
        let engine = handle::get::<Engine>(engine)?;
        // Nobody who waits holds the lock.
        let held = engine.held().pop_front();
        let Some(next) = held.or_else(|| engine.engine.recv(timeout)) else {
            let text = format!("nothing came within {timeout:?}");
            return Err(Failure::new(tranship_status_t::TRANSHIP_TIMEOUT, text));
        };
        out.set(describe(&next));
        let Incoming::Message { bytes, .. } = &next else { return Ok(()) };
        let put = fits(bytes.len(), capacity)
            .and_then(|()| output::bytes(bytes, buffer, capacity, std::ptr::null_mut()));
        if put.is_err() {
            engine.held().push_back(next);
        }
        put
    })
}

fn describe(incoming: &Incoming) -> tranship_incoming_t {
    let (from, kind, len, why) = match incoming {
        Incoming::Message { from, bytes } => {
            (*from, TRANSHIP_INCOMING_MESSAGE, bytes.len() as u64, None)
        }
        Incoming::Connected(peer) => (*peer, TRANSHIP_INCOMING_CONNECTED, 0, None),
        Incoming::Disconnected { peer, reason } => {
            (*peer, TRANSHIP_INCOMING_DISCONNECTED, 0, Some(*reason))
        }
    };
    tranship_incoming_t { from: from.into(), len, kind, reason: reason::number(why) }
}

/// A message without a buffer is not lost either.
fn fits(len: usize, capacity: usize) -> Result {
    if len <= capacity {
        return Ok(());
    }
    let text = format!("a message of {len} bytes does not fit into a buffer of {capacity}");
    Err(Failure::new(tranship_status_t::TRANSHIP_TOO_SMALL, text))
}
