//! Peers.

use std::ffi::c_char;

use tranship_transport::{Address, Peer};

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input;
use crate::output::Out;
use crate::status::{Failure, Result, tranship_status_t};

/// Another engine, as one of this process knows it. A value: nothing needs to be closed. One that was
/// dialled reconnects with the next transfer after it went down.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_peer_t {
    /// Of no meaning to the caller.
    pub bits: [u64; 2],
}

impl From<Peer> for tranship_peer_t {
    fn from(peer: Peer) -> Self {
        let bits = peer.to_bits();
        Self { bits: [bits as u64, (bits >> 64) as u64] }
    }
}

impl From<tranship_peer_t> for Peer {
    fn from(peer: tranship_peer_t) -> Self {
        Self::from_bits(u128::from(peer.bits[0]) | u128::from(peer.bits[1]) << 64)
    }
}

unsafe fn address(text: *const c_char) -> Result<Address> {
    // SAFETY: as the caller says.
    let text = unsafe { input::text(text, "address") }?;
    let text = text.ok_or_else(|| Failure::invalid("address is NULL"))?;
    text.parse().map_err(|error| Failure::invalid(format!("{error}")))
}

/// Names a peer by its address ("shm:/PATH", "tcp:HOST:PORT"), without dialling: the first transfer does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_peer_at(
    engine: *mut tranship_engine_t,
    at: *const c_char,
    peer: *mut tranship_peer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let peer = Out::new(peer, "peer")?;
        let engine = handle::get::<Engine>(engine)?;
        peer.set(engine.engine.peer(&address(at)?)?.into());
        Ok(())
    })
}

/// Dials a peer and waits until it answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_peer_connect(
    engine: *mut tranship_engine_t,
    at: *const c_char,
    timeout_us: u64,
    peer: *mut tranship_peer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let peer = Out::new(peer, "peer")?;
        let engine = handle::get::<Engine>(engine)?;
        let timeout = input::wait(timeout_us)?;
        peer.set(engine.engine.connect(&address(at)?, timeout)?.into());
        Ok(())
    })
}

/// Hangs up. Transfers in flight to the peer end.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_peer_disconnect(
    engine: *mut tranship_engine_t,
    peer: tranship_peer_t,
) -> tranship_status_t {
    call(|| {
        handle::get::<Engine>(engine)?.engine.disconnect(peer.into());
        Ok(())
    })
}
