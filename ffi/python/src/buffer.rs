//! The buffer protocol (PEP 3118).
//!
//! It joined the stable ABI with Python 3.11; the functions and the struct have been the same since 3.0,
//! so declaring them here lets one wheel serve 3.10 too.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;

#[repr(C)]
pub(crate) struct PyBuffer {
    buf: *mut c_void,
    obj: *mut PyObject,
    len: isize,
    itemsize: isize,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut isize,
    strides: *mut isize,
    suboffsets: *mut isize,
    internal: *mut c_void,
}

const WRITABLE: c_int = 0x0001;
const STRIDES: c_int = 0x0010 | 0x0008;

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut PyBuffer, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut PyBuffer);
    fn PyObject_CheckBuffer(object: *mut PyObject) -> c_int;
}

/// A buffer that an object has lent; given back when dropped.
pub(crate) struct Buffer(Box<PyBuffer>);

// SAFETY: the bytes stay valid until the buffer is given back, whichever thread uses them; `drop` takes
// the interpreter lock.
unsafe impl Send for Buffer {}
// SAFETY: as for `Send`.
unsafe impl Sync for Buffer {}

/// Whether an object lends its bytes.
pub(crate) fn lends(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive and the interpreter lock is held.
    unsafe { PyObject_CheckBuffer(object.as_ptr()) == 1 }
}

impl Buffer {
    pub(crate) fn of(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        let mut view = Box::new(PyBuffer {
            buf: ptr::null_mut(),
            obj: ptr::null_mut(),
            len: 0,
            itemsize: 0,
            readonly: 0,
            ndim: 0,
            format: ptr::null_mut(),
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            suboffsets: ptr::null_mut(),
            internal: ptr::null_mut(),
        });
        let flags = if writable { STRIDES | WRITABLE } else { STRIDES };
        // SAFETY: the object is alive, the interpreter lock is held, and `view` stays where it is.
        if unsafe { PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self(view))
    }

    /// First byte, shape and strides (elements of `item_bytes`).
    pub(crate) fn tensor(&self) -> tranship_kv::paged::Tensor {
        let view = &self.0;
        let item_bytes = usize::try_from(view.itemsize).unwrap_or(0).max(1);
        let dims = usize::try_from(view.ndim).unwrap_or(0);
        let list = |at: *mut isize| -> Vec<isize> {
            if at.is_null() || dims == 0 {
                return Vec::new();
            }
            // SAFETY: the exporter filled in `ndim` numbers.
            unsafe { std::slice::from_raw_parts(at, dims) }.to_vec()
        };
        let shape = list(view.shape).into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect();
        let size = isize::try_from(item_bytes).unwrap_or(1);
        let strides = list(view.strides);
        // Strides that are no multiple of an element are counted in bytes.
        if strides.iter().any(|stride| stride % size != 0) {
            let mut shape: Vec<usize> = shape;
            shape.push(item_bytes);
            let strides = strides.into_iter().chain([1]).collect();
            return tranship_kv::paged::Tensor {
                base: view.buf.cast(),
                shape,
                strides,
                item_bytes: 1,
            };
        }
        let strides = strides.into_iter().map(|stride| stride / size).collect();
        tranship_kv::paged::Tensor { base: view.buf.cast(), shape, strides, item_bytes }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        Python::attach(|_| {
            // SAFETY: the view was filled by `PyObject_GetBuffer` and is released once, with the lock held.
            unsafe { PyBuffer_Release(&raw mut *self.0) }
        });
    }
}
