//! Room for blocks, filled in place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tranship_cache::client::{self, Filled, Grant, Reservation};
use tranship_kv::fork::Birth;

use crate::cache::check;
use crate::error::{invalid, raise};
use crate::export::{self, Owner};
use crate::region::let_go;
use crate::results::StoreResult;

/// The right to fill one block, which nobody can read before it is committed. Letting go of it, and of what is left of
/// its buffers, gives it back.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Room {
    /// Also held by the buffers that are in use.
    open: Option<Arc<Mutex<Option<Reservation>>>>,
    len: u64,
    birth: Birth,
}

fn locked(open: &Mutex<Option<Reservation>>) -> MutexGuard<'_, Option<Reservation>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    fn open(&self, py: Python<'_>) -> PyResult<&Arc<Mutex<Option<Reservation>>>> {
        check(py, self.birth)?;
        let closed = || raise(py, "closed", "the room was committed or closed; reserve another");
        self.open.as_ref().filter(|open| locked(open).is_some()).ok_or_else(closed)
    }
}

#[pymethods]
impl Room {
    /// How long the block is, bytes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.len
    }

    /// The block's bytes, to be filled. No view of them may be left when the room is committed.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let open = Arc::clone(self.open(py)?);
        let space = match &*locked(&open) {
            Some(room) => room.space().map_err(|error| raise(py, "failed", error.to_string()))?,
            None => return Err(raise(py, "closed", "the room was committed; reserve another")),
        };
        let place = (space, usize::try_from(self.len)?);
        let owner = Py::new(py, Owner::new(open, self.birth))?.into_any();
        export::view(py, place, true, owner)
    }

    /// Gives the room back, now or as soon as no view of it is in use. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        if self.birth.is_elsewhere() {
            return;
        }
        if let Some(open) = &self.open
            && Arc::strong_count(open) == 1
        {
            let room = locked(open).take();
            py.detach(|| drop(room));
        }
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(usize::try_from(self.len)?)
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, pyo3::types::PyTuple>) {
        self.close(py);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let_go(self.open.take(), self.birth);
    }
}

/// Why there is no room for a block.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct NoRoom {
    /// EXISTS, IN_FLIGHT or REFUSED.
    #[pyo3(get)]
    result: StoreResult,
    /// Why it was refused.
    #[pyo3(get)]
    why: Option<String>,
    /// When to try again, seconds.
    #[pyo3(get)]
    retry_after: Option<f64>,
}

#[pymethods]
impl NoRoom {
    fn __repr__(&self) -> String {
        format!("NoRoom({:?}, {:?})", self.result, self.why.as_deref().unwrap_or_default())
    }
}

/// A room, or why there is none.
pub(crate) fn answer(py: Python<'_>, grant: Grant, birth: Birth) -> PyResult<Py<PyAny>> {
    let none = |result| NoRoom { result, why: None, retry_after: None };
    let none = match grant {
        Grant::Granted(room) => {
            let len = room.len();
            let open = Some(Arc::new(Mutex::new(Some(room))));
            return Ok(Py::new(py, Room { open, len, birth })?.into_any());
        }
        Grant::Exists => none(StoreResult::Exists),
        Grant::InFlight => none(StoreResult::InFlight),
        Grant::Refused { why, retry_after } => NoRoom {
            why: Some(why),
            retry_after: retry_after.map(|span| span.as_secs_f64()),
            ..none(StoreResult::Refused)
        },
    };
    Ok(Py::new(py, none)?.into_any())
}

/// Takes the rooms out of their objects: all of them, or none.
fn taken(py: Python<'_>, rooms: &[Bound<'_, Room>]) -> PyResult<Vec<Reservation>> {
    for (index, room) in rooms.iter().enumerate() {
        let open = room.get().open(py)?;
        if Arc::strong_count(open) > 1 {
            let text = format!("a view of room {index} is in use; release it, then commit");
            return Err(invalid(py, text));
        }
        if rooms[..index].iter().any(|other| other.is(room)) {
            return Err(invalid(py, format!("room {index} is there twice")));
        }
    }
    let taken = rooms.iter().map(|room| Ok(locked(room.get().open(py)?).take()));
    Ok(taken.collect::<PyResult<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Makes filled blocks readable; one result a room.
pub(crate) fn commit(
    py: Python<'_>,
    cache: &client::Cache,
    rooms: &[Bound<'_, Room>],
) -> PyResult<Result<Vec<client::Stored>, client::Error>> {
    let rooms = taken(py, rooms)?;
    Ok(py.detach(|| {
        let refused = |why: String| client::Stored::Refused { why, retry_after: None };
        let (mut full, mut places): (Vec<Filled>, _) = (Vec::new(), Vec::new());
        let mut results = Vec::new();
        for room in rooms {
            match room.seal() {
                Ok(filled) => {
                    places.push(results.len());
                    full.push(filled);
                    results.push(client::Stored::Stored);
                }
                Err(error) => results.push(refused(error.to_string())),
            }
        }
        for (place, committed) in places.into_iter().zip(cache.commit(full)?) {
            if let Err(error) = committed {
                results[place] = refused(error.to_string());
            }
        }
        Ok(results)
    }))
}
