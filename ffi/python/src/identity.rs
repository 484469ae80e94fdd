//! What makes two KV caches interchangeable.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tranship_cache::identity::{self, Geometry};

use crate::error::invalid;

/// What must agree before the bytes of one KV cache may stand in for those of another.
#[pyclass(frozen, eq, module = "tranship")]
#[derive(Clone, PartialEq)]
pub(crate) struct Identity(pub(crate) identity::Identity);

impl Identity {
    /// What is cached by name and is no model's, where no identity is given.
    pub(crate) fn nameless() -> identity::Identity {
        let geometry = Geometry::default();
        let nameless = identity::Identity::new("default", "main", "bytes", geometry, 1);
        identity::Identity { layout: "raw".into(), ..nameless }
    }
}

#[pymethods]
impl Identity {
    #[new]
    #[pyo3(signature = (model, revision="main", dtype="bytes", layout="raw", *, layers=1, kv_heads=1, head_dim=1,
        tp_size=1, tp_rank=0, pp_size=1, pp_rank=0, block_tokens=1, salt=""))]
    #[expect(clippy::too_many_arguments, reason = "keywords, in Python")]
    fn new(
        py: Python<'_>,
        model: &str,
        revision: &str,
        dtype: &str,
        layout: &str,
        layers: u32,
        kv_heads: u32,
        head_dim: u32,
        tp_size: u32,
        tp_rank: u32,
        pp_size: u32,
        pp_rank: u32,
        block_tokens: u32,
        salt: &str,
    ) -> PyResult<Self> {
        let geometry = Geometry { layers, kv_heads, head_dim, tp_size, tp_rank, pp_size, pp_rank };
        let mut identity = identity::Identity::new(model, revision, dtype, geometry, block_tokens);
        identity.layout = layout.into();
        identity.salt = salt.into();
        identity.encode().map_err(|error| invalid(py, error))?;
        Ok(Self(identity))
    }

    #[getter]
    fn model(&self) -> &str {
        &self.0.model
    }

    #[getter]
    fn revision(&self) -> &str {
        &self.0.revision
    }

    #[getter]
    fn dtype(&self) -> &str {
        &self.0.dtype
    }

    #[getter]
    fn layout(&self) -> &str {
        &self.0.layout
    }

    #[getter]
    fn block_tokens(&self) -> u32 {
        self.0.block_tokens
    }

    #[getter]
    fn tp_rank(&self) -> u32 {
        self.0.geometry.tp_rank
    }

    #[getter]
    fn pp_rank(&self) -> u32 {
        self.0.geometry.pp_rank
    }

    /// The 128-bit name, hex digits.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// In which fields this and another differ; empty when they agree. Secrets are not told.
    fn explain(&self, other: &Self) -> String {
        self.0.explain_mismatch(&other.0)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let i = &self.0;
        let g = &i.geometry;
        format!(
            "Identity({:?}, {:?}, {:?}, {:?}, layers={}, kv_heads={}, head_dim={}, tp={}/{}, pp={}/{}, \
             block_tokens={})",
            i.model,
            i.revision,
            i.dtype,
            i.layout,
            g.layers,
            g.kv_heads,
            g.head_dim,
            g.tp_rank,
            g.tp_size,
            g.pp_rank,
            g.pp_size,
            i.block_tokens
        )
    }

    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let (i, g) = (&self.0, &self.0.geometry);
        let words = PyTuple::new(py, [&i.model, &i.revision, &i.dtype, &i.layout])?;
        let named = PyDict::new(py);
        for (name, value) in [
            ("layers", g.layers),
            ("kv_heads", g.kv_heads),
            ("head_dim", g.head_dim),
            ("tp_size", g.tp_size),
            ("tp_rank", g.tp_rank),
            ("pp_size", g.pp_size),
            ("pp_rank", g.pp_rank),
            ("block_tokens", i.block_tokens),
        ] {
            named.set_item(name, value)?;
        }
        named.set_item("salt", &i.salt)?;
        Ok((words, named))
    }
}
