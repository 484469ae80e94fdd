//! Room for blocks, filled in place.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tranship_cache::client::{Filled, Grant, Reservation};

use crate::blocks::{TRANSHIP_STORE_EXISTS, TRANSHIP_STORE_IN_FLIGHT, TRANSHIP_STORE_REFUSED};
use crate::blocks::{TRANSHIP_STORE_STORED, retry_ms};
use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::keys::{links, tranship_link_t};
use crate::output::{Out, OutList};
use crate::reasons;
use crate::status::{Failure, Result, tranship_status_t};

/// The right to fill one block, which nobody can read before it is committed.
pub struct tranship_room_t {
    _opaque: [u8; 0],
}

/// The answer to one block that room was asked for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_grant_t {
    /// Fill it and commit it, or close it; NULL unless `result` is TRANSHIP_STORE_STORED.
    pub room: *mut tranship_room_t,
    /// TRANSHIP_STORE_STORED when there is room, else TRANSHIP_STORE_EXISTS, _IN_FLIGHT or _REFUSED, for which
    /// tranship_last_reason() says why.
    pub result: u32,
    /// When to try again, milliseconds; 0 when that cannot help.
    pub retry_ms: u32,
}

/// What the handle stands for; nothing once it was committed.
pub struct Room {
    state: Mutex<Option<State>>,
    len: u64,
}

enum State {
    Open(Reservation),
    Full(Filled),
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for room for blocks of so many bytes each, that live no longer than `ttl_us` once committed (0: as long
/// as they are worth it). One grant a block. The blocks of one chain come in order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_reserve(
    cache: *mut tranship_cache_t,
    blocks: *const tranship_link_t,
    lens: *const u64,
    count: usize,
    ttl_us: u64,
    grants: *mut tranship_grant_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(grants, count, "grants")?;
        let none = tranship_grant_t {
            room: std::ptr::null_mut(),
            result: TRANSHIP_STORE_REFUSED,
            retry_ms: 0,
        };
        out.fill((0..count).map(|_| none));
        let ttl = input::span(ttl_us)?;
        let lens = input::list(lens, count, "lens")?;
        let wanted: Vec<_> = links(blocks, count)?.into_iter().zip(lens.iter().copied()).collect();
        let answers = handle::get::<Cache>(cache)?.cache.reserve_for(&wanted, ttl)?;
        reasons::keep(answers.iter().map(|grant| match grant {
            Grant::Refused { why, .. } => why.as_str(),
            _ => "",
        }));
        for (index, grant) in answers.into_iter().enumerate() {
            out.set(index, answer(grant, none)?);
        }
        Ok(())
    })
}

fn answer(grant: Grant, none: tranship_grant_t) -> Result<tranship_grant_t> {
    Ok(match grant {
        Grant::Granted(open) => {
            let len = open.len();
            let room = Room { state: Mutex::new(Some(State::Open(open))), len };
            tranship_grant_t {
                room: handle::open(room)?,
                result: TRANSHIP_STORE_STORED,
                retry_ms: 0,
            }
        }
        Grant::Exists => tranship_grant_t { result: TRANSHIP_STORE_EXISTS, ..none },
        Grant::InFlight => tranship_grant_t { result: TRANSHIP_STORE_IN_FLIGHT, ..none },
        Grant::Refused { retry_after, .. } => {
            tranship_grant_t { retry_ms: retry_ms(retry_after), ..none }
        }
    })
}

/// Where to fill the block: `len` bytes from `data` on, until the room is committed or closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_room_space(
    room: *mut tranship_room_t,
    data: *mut *mut c_void,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let (data, len) = (Out::new(data, "data")?, Out::new(len, "len")?);
        let room = handle::get::<Room>(room)?;
        let state = room.lock();
        match &*state {
            Some(State::Open(open)) => data.set(open.space()?.cast()),
            Some(State::Full(_)) => {
                return Err(Failure::invalid("the room was filled by a copy; commit it"));
            }
            None => return Err(handle::closed("a room")),
        }
        len.set(room.len as usize);
        Ok(())
    })
}

/// Fills the block by a copy of `len` bytes, which is its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_room_write(
    room: *mut tranship_room_t,
    data: *const c_void,
    len: usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let bytes = input::bytes(data.cast(), len, "data")?;
        let room = handle::get::<Room>(room)?;
        if room.len != len as u64 {
            let text = format!("the block has {} bytes, the data {len}", room.len);
            return Err(Failure::invalid(text));
        }
        let mut state = room.lock();
        *state = match state.take() {
            Some(State::Open(open)) => Some(State::Full(open.write(bytes)?)),
            Some(State::Full(full)) => {
                *state = Some(State::Full(full));
                return Err(Failure::invalid("the room was filled before; commit it"));
            }
            None => return Err(handle::closed("a room")),
        };
        Ok(())
    })
}

/// Makes filled blocks readable, and closes their rooms. `results` gets TRANSHIP_STORE_STORED or
/// TRANSHIP_STORE_REFUSED a block, for which tranship_last_reason() says why. When the call itself fails with
/// TRANSHIP_INVALID, TRANSHIP_BAD_HANDLE or TRANSHIP_CLOSED, no room was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_commit(
    cache: *mut tranship_cache_t,
    rooms: *const *mut tranship_room_t,
    count: usize,
    results: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(results, count, "results")?;
        let rooms = input::list(rooms, count, "rooms")?;
        let cache = handle::get::<Cache>(cache)?;
        let objects: Vec<Arc<Room>> =
            rooms.iter().map(|room| handle::get::<Room>(*room)).collect::<Result<_>>()?;
        if rooms.iter().collect::<HashSet<_>>().len() != count {
            return Err(Failure::invalid("one room twice among those to be committed"));
        }
        let (mut full, mut places) = (Vec::new(), Vec::new());
        let mut whys = vec![String::new(); count];
        for (index, (object, room)) in objects.iter().zip(rooms).enumerate() {
            // Another thread may have been faster.
            let state = object.lock().take();
            drop(handle::close::<Room>(*room));
            let filled = match state {
                Some(State::Open(open)) => open.seal().map_err(|error| error.to_string()),
                Some(State::Full(full)) => Ok(full),
                None => Err("the room was committed or closed by another thread".to_owned()),
            };
            match filled {
                Ok(filled) => {
                    full.push(filled);
                    places.push(index);
                }
                Err(why) => whys[index] = why,
            }
        }
        for (place, committed) in places.into_iter().zip(cache.cache.commit(full)?) {
            if let Err(error) = committed {
                whys[place] = error.to_string();
            }
        }
        out.fill(whys.iter().map(|why| {
            if why.is_empty() { TRANSHIP_STORE_STORED } else { TRANSHIP_STORE_REFUSED }
        }));
        reasons::keep(whys.iter().map(String::as_str));
        Ok(())
    })
}

/// Gives the room back, and closes the handle.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_room_close(room: *mut tranship_room_t) -> tranship_status_t {
    call(|| {
        let object = handle::close::<Room>(room)?;
        let state = object.lock().take();
        drop(state);
        Ok(())
    })
}
