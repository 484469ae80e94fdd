//! Keys of blocks, with their places in the chains they belong to.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice};
use tranship_cache::lineage::Hashed;
use tranship_cache::{Chain, Key, Link};

use crate::error::invalid;
use crate::identity::Identity;

/// Bytes of a link in pickled form: key, whether there is a parent, parent, position.
const LINK_BYTES: usize = 16 + 1 + 16 + 4;

/// An immutable sequence of block keys.
#[pyclass(frozen, eq, module = "tranship")]
#[derive(Clone, PartialEq)]
pub(crate) struct Keys(pub(crate) Vec<Link>);

#[pymethods]
impl Keys {
    /// Keys of an engine's own block hashes, each over all blocks before it. `context` is what the hash
    /// leaves out; `start` is the place of the first in its sequence.
    #[staticmethod]
    #[pyo3(signature = (hashes, context=None, *, start=0, parent=None))]
    fn of_hashes(
        py: Python<'_>,
        hashes: Vec<Bound<'_, PyAny>>,
        context: Option<&[u8]>,
        start: u32,
        parent: Option<&[u8]>,
    ) -> PyResult<Self> {
        let parent = parent.map(|parent| key(py, parent)).transpose()?;
        let mut chain = Hashed::new(context.unwrap_or_default()).at(start, parent);
        let link = |hash: &Bound<'_, PyAny>| with_bytes(hash, |bytes| chain.push(bytes));
        hashes.iter().map(link).collect::<PyResult<_>>().map(Self)
    }

    /// Keys of a sequence of tokens under an identity: one for each full block.
    #[staticmethod]
    fn of_tokens(py: Python<'_>, identity: &Identity, tokens: Vec<u32>) -> PyResult<Self> {
        let size = identity.0.block_tokens as usize;
        if size == 0 {
            return Err(invalid(
                py,
                "block_tokens of the identity is 0; give the tokens of a block",
            ));
        }
        let mut chain = Chain::new(&identity.0);
        Ok(Self(tokens.chunks_exact(size).map(|block| chain.push_tokens(block)).collect()))
    }

    /// Keys of names, each on its own: no parent, no place.
    #[staticmethod]
    #[pyo3(signature = (names, context=None))]
    fn of_names(names: Vec<Bound<'_, PyAny>>, context: Option<&[u8]>) -> PyResult<Self> {
        let chain = Hashed::new(context.unwrap_or_default());
        let link = |name: &Bound<'_, PyAny>| with_bytes(name, |bytes| chain.clone().push(bytes));
        names.iter().map(link).collect::<PyResult<_>>().map(Self)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(isize::try_from(self.0.len())?)?;
            let mut links = Vec::with_capacity(range.slicelength);
            let mut at = range.start;
            for _ in 0..range.slicelength {
                links.push(self.0[usize::try_from(at)?]);
                at += range.step;
            }
            return Ok(Bound::new(py, Self(links))?.into_any());
        }
        let len = isize::try_from(self.0.len())?;
        let index: isize = index.extract()?;
        let at = if index < 0 { index + len } else { index };
        if !(0..len).contains(&at) {
            return Err(PyIndexError::new_err(format!("key {index} of {len}")));
        }
        Ok(PyBytes::new(py, self.0[usize::try_from(at)?].key.as_bytes()).into_any())
    }

    fn __add__(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).copied().collect())
    }

    fn __repr__(&self) -> String {
        match self.0.first() {
            Some(first) => format!("Keys({} from {} on)", self.0.len(), first.key),
            None => "Keys()".into(),
        }
    }

    #[staticmethod]
    fn _load(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        if !bytes.len().is_multiple_of(LINK_BYTES) {
            return Err(invalid(py, "pickled keys of a wrong length"));
        }
        let link = |bytes: &[u8]| {
            let part = |from: usize| -> [u8; 16] {
                bytes[from..from + 16].try_into().expect("sixteen bytes")
            };
            let position = bytes[33..].try_into().expect("four bytes");
            Link {
                key: Key::from_bytes(part(0)),
                parent: (bytes[16] != 0).then(|| Key::from_bytes(part(17))),
                position: u32::from_le_bytes(position),
            }
        };
        Ok(Self(bytes.chunks_exact(LINK_BYTES).map(link).collect()))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let mut bytes = Vec::with_capacity(self.0.len() * LINK_BYTES);
        for link in &self.0 {
            bytes.extend_from_slice(link.key.as_bytes());
            bytes.push(u8::from(link.parent.is_some()));
            bytes.extend_from_slice(link.parent.unwrap_or(Key::from_bytes([0; 16])).as_bytes());
            bytes.extend_from_slice(&link.position.to_le_bytes());
        }
        let load = py.get_type::<Self>().getattr("_load")?;
        Ok((load, (PyBytes::new(py, &bytes),)))
    }
}

/// What callers give for keys: [`Keys`], or a sequence of 16 bytes each, taken for one chain's.
pub(crate) fn links(keys: &Bound<'_, PyAny>) -> PyResult<Vec<Link>> {
    if let Ok(keys) = keys.cast::<Keys>() {
        return Ok(keys.get().0.clone());
    }
    let (mut links, mut parent) = (Vec::new(), None);
    for (position, item) in (0_u32..).zip(keys.try_iter()?) {
        let item = item?;
        let bytes = item.cast::<PyBytes>().map_err(|_| {
            invalid(keys.py(), "keys are tranship.Keys, or a sequence of bytes, 16 each")
        })?;
        let key = key(keys.py(), bytes.as_bytes())?;
        links.push(Link { key, parent, position });
        parent = Some(key);
    }
    Ok(links)
}

fn key(py: Python<'_>, bytes: &[u8]) -> PyResult<Key> {
    let wrong = |_| invalid(py, format!("a key has 16 bytes, not {}", bytes.len()));
    bytes.try_into().map(Key::from_bytes).map_err(wrong)
}

fn with_bytes<T>(name: &Bound<'_, PyAny>, f: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    if let Ok(bytes) = name.cast::<PyBytes>() {
        return Ok(f(bytes.as_bytes()));
    }
    let text: String = name.extract()?;
    Ok(f(text.as_bytes()))
}
