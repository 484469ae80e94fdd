//! Room for blocks, filled in place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tranship_cache::client::{self, Grant, Reservation};
use tranship_kv::fork::Birth;

use crate::cache::check;
use crate::error::{invalid, raise};
use crate::export;

/// The right to fill one block, which nobody can read before it is committed; or why there is none.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Room {
    state: Mutex<State>,
    len: u64,
    birth: Birth,
}

enum State {
    /// Memory that was lent has a part in it.
    Open(Arc<Reservation>),
    Without(client::Stored),
    Closed,
}

impl Room {
    pub(crate) fn new(grant: Grant, len: u64) -> Self {
        let state = match grant {
            Grant::Granted(reservation) => State::Open(Arc::new(reservation)),
            Grant::Exists => State::Without(client::Stored::Exists),
            Grant::InFlight => State::Without(client::Stored::InFlight),
            Grant::Refused { why, retry_after } => {
                State::Without(client::Stored::Refused { why, retry_after })
            }
        };
        Self { state: Mutex::new(state), len, birth: Birth::here() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(py: Python<'_>) -> PyErr {
        raise(py, "closed", "the room was committed or given back; reserve another")
    }

    /// The rooms' reservations, or what else became of them; all rooms are closed then, or none.
    pub(crate) fn take_all(
        py: Python<'_>,
        rooms: &[PyRef<'_, Self>],
    ) -> PyResult<Vec<Result<Reservation, client::Stored>>> {
        for (index, room) in rooms.iter().enumerate() {
            check(py, room.birth)?;
            match &*room.lock() {
                State::Open(reservation) if Arc::strong_count(reservation) > 1 => {
                    let text = format!(
                        "the memory of room {index} is still lent; let go of its arrays, tensors and memoryviews first"
                    );
                    return Err(invalid(py, text));
                }
                State::Closed => return Err(Self::closed(py)),
                State::Open(_) | State::Without(_) => {}
            }
            if rooms[..index]
                .iter()
                .any(|other| std::ptr::eq(&raw const **other, &raw const **room))
            {
                return Err(invalid(py, format!("room {index} is there twice")));
            }
        }
        let take = |room: &PyRef<'_, Self>| {
            let gone = || client::Stored::Refused {
                why: "the room was taken meanwhile".into(),
                retry_after: None,
            };
            match std::mem::replace(&mut *room.lock(), State::Closed) {
                State::Open(reservation) => Arc::try_unwrap(reservation).map_err(|_| gone()),
                State::Without(answer) => Err(answer),
                State::Closed => Err(gone()),
            }
        };
        Ok(rooms.iter().map(take).collect())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.birth.is_elsewhere() {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::replace(state, State::Closed));
        }
    }
}

#[pymethods]
impl Room {
    /// Whether there is room to fill; else the block exists, is on its way, or was refused.
    #[getter]
    fn granted(&self, py: Python<'_>) -> PyResult<bool> {
        check(py, self.birth)?;
        match &*self.lock() {
            State::Open(_) => Ok(true),
            State::Without(_) => Ok(false),
            State::Closed => Err(Self::closed(py)),
        }
    }

    /// Why there is none, when it was refused.
    #[getter]
    fn why(&self, py: Python<'_>) -> PyResult<Option<String>> {
        check(py, self.birth)?;
        match &*self.lock() {
            State::Without(client::Stored::Refused { why, .. }) => Ok(Some(why.clone())),
            State::Open(_) | State::Without(_) => Ok(None),
            State::Closed => Err(Self::closed(py)),
        }
    }

    /// Where to fill the block: writable memory, to be let go of before the commit.
    #[getter]
    fn memory(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        check(py, self.birth)?;
        let reservation = match &*self.lock() {
            State::Open(reservation) => Arc::clone(reservation),
            State::Without(answer) => {
                return Err(invalid(py, format!("there is no room for this block: {answer:?}")));
            }
            State::Closed => return Err(Self::closed(py)),
        };
        let at = reservation.space().map_err(|error| raise(py, "full", error.to_string()))?;
        // SAFETY: the address is good for as long as the reservation is, which cannot be committed before
        // the memory has been let go of.
        unsafe { export::memory(py, at, usize::try_from(self.len)?, true, Box::new(reservation)) }
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(usize::try_from(self.len)?)
    }

    /// Gives the room back. Closing twice is fine.
    fn close(&self) {
        if !self.birth.is_elsewhere() {
            let state = std::mem::replace(&mut *self.lock(), State::Closed);
            drop(state);
        }
    }

    fn __repr__(&self) -> String {
        match &*self.lock() {
            State::Open(reservation) => format!("Room({reservation:?})"),
            State::Without(answer) => format!("Room(none: {answer:?})"),
            State::Closed => "Room(closed)".into(),
        }
    }
}
