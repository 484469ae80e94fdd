//! Tensors by DLPack, without a copy: <https://dmlc.github.io/dlpack/latest/c_api.html>.

use std::ffi::{CStr, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use tranship_kv::paged::Tensor;

use crate::error::invalid;

#[repr(C)]
struct DlDevice {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DlDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DlDataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct DlManagedTensor {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut DlManagedTensor)>,
}

const NAME: &CStr = c"dltensor";
const USED: &CStr = c"used_dltensor";
/// `DLPACK_FLAG_BITMASK_READ_ONLY`.
const READ_ONLY: u64 = 1;
/// `kDLCPU`, `kDLCUDAHost`, `kDLROCMHost`: memory of the host.
const HOST: [i32; 3] = [1, 3, 11];

/// A tensor that an object has handed over; freed when dropped.
pub(crate) struct Taken(*mut DlManagedTensor);

// SAFETY: the tensor's memory stays valid until its deleter ran, which DLPack allows on any thread.
unsafe impl Send for Taken {}
// SAFETY: as for `Send`; nothing is changed through it.
unsafe impl Sync for Taken {}

/// Whether an object speaks DLPack.
pub(crate) fn speaks(object: &Bound<'_, PyAny>) -> bool {
    object.hasattr("__dlpack__").unwrap_or(false)
}

impl Taken {
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let (kind, id): (i32, i32) = object.call_method0("__dlpack_device__")?.extract()?;
        if !HOST.contains(&kind) {
            let text = format!(
                "the tensor is on device {id} of DLPack type {kind}; only host memory can be used yet: \
                 copy it with .cpu()"
            );
            return Err(crate::error::raise(py, "unsupported", text));
        }
        let capsule = object.call_method0("__dlpack__")?;
        let capsule =
            capsule.cast::<PyCapsule>().map_err(|_| invalid(py, "__dlpack__ gave no capsule"))?;
        // SAFETY: the capsule is alive; its name is compared by the interpreter.
        let at = unsafe { pyo3::ffi::PyCapsule_GetPointer(capsule.as_ptr(), NAME.as_ptr()) };
        if at.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: as above; from here on the tensor is ours to delete.
        if unsafe { pyo3::ffi::PyCapsule_SetName(capsule.as_ptr(), USED.as_ptr()) } != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Self(at.cast()))
    }

    pub(crate) fn tensor(&self, py: Python<'_>) -> PyResult<Tensor> {
        // SAFETY: not null, and ours until dropped.
        let tensor = unsafe { &(*self.0).tensor };
        let bits = usize::from(tensor.dtype.bits) * usize::from(tensor.dtype.lanes);
        if bits == 0 || !bits.is_multiple_of(8) {
            return Err(invalid(py, format!("elements of {bits} bits; view the tensor as bytes")));
        }
        let dims = usize::try_from(tensor.ndim).unwrap_or(0);
        let list = |at: *mut i64| -> Option<Vec<i64>> {
            // SAFETY: DLPack says there are `ndim` numbers where it is not null.
            (!at.is_null() && dims > 0)
                .then(|| unsafe { std::slice::from_raw_parts(at, dims) }.to_vec())
        };
        let shape: Vec<usize> = list(tensor.shape)
            .unwrap_or_default()
            .into_iter()
            .map(|n| usize::try_from(n).unwrap_or(0))
            .collect();
        let strides = match list(tensor.strides) {
            Some(strides) => {
                strides.into_iter().map(|n| isize::try_from(n).unwrap_or(-1)).collect()
            }
            None => dense(&shape),
        };
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(0);
        let base = tensor.data.cast::<u8>().wrapping_add(offset);
        Ok(Tensor { base, shape, strides, item_bytes: bits / 8 })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        Python::attach(|_| {
            // SAFETY: ours, deleted once. Exporters may need the interpreter lock to let go of their object.
            unsafe {
                if let Some(deleter) = (*self.0).deleter {
                    deleter(self.0);
                }
            }
        });
    }
}

/// A tensor that is given away, and what it holds on to.
#[repr(C)]
struct Given<M> {
    managed: M,
    shape: i64,
    stride: i64,
    owner: Option<Py<PyAny>>,
}

/// `DLManagedTensorVersioned`, of DLPack 1.0.
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

/// The two kinds of managed tensors.
trait Managed: Sized {
    const NAME: &CStr;
    fn tensor(&mut self) -> &mut DlTensor;
}

impl Managed for DlManagedTensor {
    const NAME: &CStr = NAME;
    fn tensor(&mut self) -> &mut DlTensor {
        &mut self.tensor
    }
}

impl Managed for Versioned {
    const NAME: &CStr = c"dltensor_versioned";
    fn tensor(&mut self) -> &mut DlTensor {
        &mut self.tensor
    }
}

/// `len` bytes of the host as a tensor that holds on to their owner, as `__dlpack__` gives it: `wishes` are its
/// arguments. Only DLPack 1.0 can say that bytes are read-only.
pub(crate) fn give<'py>(
    py: Python<'py>,
    (data, len): (*mut c_void, usize),
    writable: bool,
    owner: Py<PyAny>,
    wishes: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let wish = |name: &str| -> PyResult<Option<Bound<'py, PyAny>>> {
        let value = wishes.map(|wishes| wishes.get_item(name)).transpose()?.flatten();
        Ok(value.filter(|value| !value.is_none()))
    };
    if let Some(device) = wish("dl_device")?
        && device.extract::<(i32, i32)>()? != (HOST[0], 0)
    {
        return Err(PyBufferError::new_err(
            "the bytes are the host's and cannot be lent elsewhere",
        ));
    }
    if let Some(copy) = wish("copy")?
        && copy.extract::<bool>()?
    {
        return Err(PyBufferError::new_err("the bytes are lent, not copied; copy the buffer"));
    }
    let tensor = DlTensor {
        data,
        device: DlDevice { kind: HOST[0], id: 0 },
        ndim: 1,
        // kDLUInt.
        dtype: DlDataType { code: 1, bits: 8, lanes: 1 },
        shape: std::ptr::null_mut(),
        strides: std::ptr::null_mut(),
        byte_offset: 0,
    };
    let (newest, context) = (wish("max_version")?, std::ptr::null_mut());
    match newest.map(|it| it.extract::<(u32, u32)>()).transpose()? {
        Some((1.., _)) => {
            let flags = if writable { 0 } else { READ_ONLY };
            let deleter = Some(delete::<Versioned> as unsafe extern "C" fn(_));
            let managed = Versioned { version: [1, 0], context, deleter, flags, tensor };
            capsule(py, managed, len, owner)
        }
        _ if writable => {
            let deleter = Some(delete::<DlManagedTensor> as unsafe extern "C" fn(_));
            capsule(py, DlManagedTensor { tensor, context, deleter }, len, owner)
        }
        _ => Err(PyBufferError::new_err(
            "the bytes are read-only, which DLPack before 1.0 cannot say; use the buffer",
        )),
    }
}

fn capsule<M: Managed>(
    py: Python<'_>,
    managed: M,
    len: usize,
    owner: Py<PyAny>,
) -> PyResult<Bound<'_, PyAny>> {
    let shape = i64::try_from(len).unwrap_or(i64::MAX);
    let given = Box::into_raw(Box::new(Given { managed, shape, stride: 1, owner: Some(owner) }));
    // SAFETY: just made, and nobody else's yet; its numbers stay where they are until it is deleted. The managed
    // tensor comes first in it.
    unsafe {
        let (shape, stride) = (&raw mut (*given).shape, &raw mut (*given).stride);
        let tensor = (*given).managed.tensor();
        (tensor.shape, tensor.strides) = (shape, stride);
        let untaken = Some(delete_untaken::<M> as unsafe extern "C" fn(_));
        let capsule = pyo3::ffi::PyCapsule_New(given.cast(), M::NAME.as_ptr(), untaken);
        if capsule.is_null() {
            delete::<M>(given.cast());
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

unsafe extern "C" fn delete<M>(managed: *mut M) {
    // SAFETY: made by `capsule`, where it comes first, and deleted once, as DLPack says.
    let mut given = unsafe { Box::from_raw(managed.cast::<Given<M>>()) };
    let owner = given.owner.take();
    // When the interpreter is gone its objects are left alone.
    if Python::try_attach(|_| drop(owner)).is_none() {
        given.owner = None;
    }
}

/// Deletes a tensor whose capsule nobody took it out of.
unsafe extern "C" fn delete_untaken<M: Managed>(capsule: *mut pyo3::ffi::PyObject) {
    // SAFETY: called by the interpreter with the capsule; the name says whether the tensor is still in it.
    unsafe {
        if pyo3::ffi::PyCapsule_IsValid(capsule, M::NAME.as_ptr()) == 1 {
            delete::<M>(pyo3::ffi::PyCapsule_GetPointer(capsule, M::NAME.as_ptr()).cast());
        }
    }
}

/// Strides of a dense tensor, row by row.
pub(crate) fn dense(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut next = 1_isize;
    for (stride, len) in strides.iter_mut().zip(shape).rev() {
        *stride = next;
        next = next.saturating_mul(isize::try_from(*len).unwrap_or(isize::MAX));
    }
    strides
}
