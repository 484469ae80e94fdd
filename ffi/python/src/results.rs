//! What became of blocks.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use tranship_cache::catalog::Presence;
use tranship_cache::client;

use crate::keys::Keys;

/// What became of one block that was to be loaded.
#[pyclass(eq, eq_int, frozen, hash, module = "tranship")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LoadResult {
    #[pyo3(name = "READY")]
    Ready,
    #[pyo3(name = "LATE")]
    Late,
    #[pyo3(name = "GONE")]
    Gone,
    #[pyo3(name = "CORRUPT")]
    Corrupt,
    #[pyo3(name = "FAILED")]
    Failed,
}

impl From<tranship_kv::LoadResult> for LoadResult {
    fn from(result: tranship_kv::LoadResult) -> Self {
        use tranship_kv::LoadResult as R;
        match result {
            R::Ready => Self::Ready,
            R::Late => Self::Late,
            R::Gone => Self::Gone,
            R::Corrupt => Self::Corrupt,
            R::Failed => Self::Failed,
        }
    }
}

/// What became of one block that was to be stored.
#[pyclass(eq, eq_int, frozen, hash, module = "tranship")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StoreResult {
    #[pyo3(name = "STORED")]
    Stored,
    #[pyo3(name = "EXISTS")]
    Exists,
    #[pyo3(name = "IN_FLIGHT")]
    InFlight,
    #[pyo3(name = "REFUSED")]
    Refused,
}

/// One result a block.
#[pyclass(frozen, module = "tranship")]
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) results: Vec<LoadResult>,
}

impl Loaded {
    pub(crate) fn of(results: Vec<tranship_kv::LoadResult>) -> Self {
        Self { results: results.into_iter().map(Into::into).collect() }
    }
}

#[pymethods]
impl Loaded {
    /// Whether every block is ready.
    #[getter]
    fn ok(&self) -> bool {
        self.ready() == self.results.len()
    }

    /// How many blocks are ready.
    #[getter]
    fn ready(&self) -> usize {
        self.results.iter().filter(|result| **result == LoadResult::Ready).count()
    }

    /// How many are ready from the first on.
    #[getter]
    fn prefix(&self) -> usize {
        self.results.iter().take_while(|result| **result == LoadResult::Ready).count()
    }

    /// Which are not.
    #[getter]
    fn missing(&self) -> Vec<usize> {
        let missing = self.results.iter().enumerate().filter(|(_, r)| **r != LoadResult::Ready);
        missing.map(|(index, _)| index).collect()
    }

    fn __len__(&self) -> usize {
        self.results.len()
    }

    fn __getitem__(&self, index: usize) -> PyResult<LoadResult> {
        let missing = || PyIndexError::new_err(format!("block {index} of {}", self.results.len()));
        self.results.get(index).copied().ok_or_else(missing)
    }

    fn __repr__(&self) -> String {
        format!("Loaded({} of {} ready)", self.ready(), self.results.len())
    }
}

/// One result a block.
#[pyclass(frozen, module = "tranship")]
#[derive(Clone)]
pub(crate) struct Stored(pub(crate) Vec<client::Stored>);

#[pymethods]
impl Stored {
    /// Whether every block is there now.
    #[getter]
    fn ok(&self) -> bool {
        self.refused().is_empty()
    }

    /// How many were stored, those that were there before left out.
    #[getter]
    fn stored(&self) -> usize {
        self.0.iter().filter(|result| **result == client::Stored::Stored).count()
    }

    /// Which were refused.
    #[getter]
    fn refused(&self) -> Vec<usize> {
        let refused = |result: &client::Stored| matches!(result, client::Stored::Refused { .. });
        self.0.iter().enumerate().filter(|(_, r)| refused(r)).map(|(index, _)| index).collect()
    }

    /// Why a block was refused.
    fn why(&self, index: usize) -> PyResult<Option<String>> {
        Ok(match self.at(index)? {
            client::Stored::Refused { why, .. } => Some(why.clone()),
            _ => None,
        })
    }

    /// When to try a refused block again, seconds.
    fn retry_after(&self, index: usize) -> PyResult<Option<f64>> {
        Ok(match self.at(index)? {
            client::Stored::Refused { retry_after, .. } => {
                retry_after.map(|span| span.as_secs_f64())
            }
            _ => None,
        })
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__(&self, index: usize) -> PyResult<StoreResult> {
        Ok(match self.at(index)? {
            client::Stored::Stored => StoreResult::Stored,
            client::Stored::Exists => StoreResult::Exists,
            client::Stored::InFlight => StoreResult::InFlight,
            client::Stored::Refused { .. } => StoreResult::Refused,
        })
    }

    fn __repr__(&self) -> String {
        format!("Stored({} of {} refused)", self.refused().len(), self.0.len())
    }
}

impl Stored {
    fn at(&self, index: usize) -> PyResult<&client::Stored> {
        let missing = || PyIndexError::new_err(format!("block {index} of {}", self.0.len()));
        self.0.get(index).ok_or_else(missing)
    }
}

/// The answer to a lookup; its length is that of the prefix that can be loaded.
#[pyclass(frozen, module = "tranship")]
pub(crate) struct Hit {
    pub(crate) found: client::Found,
    pub(crate) keys: Keys,
}

#[pymethods]
impl Hit {
    /// Keys, from the first, that can be loaded.
    #[getter]
    fn keys(&self) -> Keys {
        Keys(self.keys.0[..self.found.prefix].to_vec())
    }

    /// The fastest tier that has each key; None for those that none has.
    #[getter]
    fn tiers(&self) -> Vec<Option<&'static str>> {
        let tier = |presence: &Presence| match presence {
            Presence::Resident(tier) => Some(tier.name()),
            _ => None,
        };
        self.found.presence.iter().map(tier).collect()
    }

    /// Whether each key can be loaded.
    #[getter]
    fn present(&self) -> Vec<bool> {
        present(&self.found)
    }

    fn __len__(&self) -> usize {
        self.found.prefix
    }

    fn __repr__(&self) -> String {
        format!("Hit({} of {})", self.found.prefix, self.found.presence.len())
    }
}

/// Whether each key of a lookup can be loaded.
pub(crate) fn present(found: &client::Found) -> Vec<bool> {
    let present = |presence: &Presence| matches!(presence, Presence::Resident(_));
    found.presence.iter().map(present).collect()
}
