//! Memory of ours, lent to Python: the buffer protocol (PEP 3118) and DLPack.
//!
//! PyO3 cannot give a class buffer slots in the stable interface of 3.10, which does not name them yet; type
//! specifications have taken them since 3.9 (<https://docs.python.org/3/c-api/type.html>), so this one type is made
//! by hand.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::{PyBufferError, PyRuntimeError};
use pyo3::ffi as c;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use tranship_kv::fork::Birth;

use crate::buffer::PyBuffer;
use crate::dlpack::{DlDataType, DlDevice, DlManagedTensor, DlTensor, NAME};

/// What the memory belongs to; it stays for as long as anybody has the memory.
pub(crate) type Owner = Box<dyn Any + Send + Sync>;

/// `Py_bf_getbuffer`.
const GET_BUFFER: c_int = 1;
/// `kDLCPU`.
const HOST: (i32, i32) = (1, 0);
const NAME_VERSIONED: &CStr = c"dltensor_versioned";
/// `DLPACK_FLAG_BITMASK_READ_ONLY`.
const READ_ONLY: u64 = 1;

unsafe extern "C" {
    fn PyBuffer_FillInfo(
        view: *mut PyBuffer,
        object: *mut c::PyObject,
        at: *mut c_void,
        len: isize,
        read_only: c_int,
        flags: c_int,
    ) -> c_int;
}

/// The object behind `tranship.Memory`.
#[repr(C)]
struct Object {
    base: c::PyObject,
    at: *mut u8,
    len: isize,
    writable: bool,
    /// Made of a box.
    lent: *mut Lent,
}

struct Lent {
    owner: Owner,
    birth: Birth,
}

/// The type.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.get_or_try_init(py, || make(py)).map(|class| class.bind(py))
}

/// `len` bytes from `at` on, as an object.
///
/// # Safety
/// They have to be there for as long as `owner` is.
pub(crate) unsafe fn memory(
    py: Python<'_>,
    at: *mut u8,
    len: usize,
    writable: bool,
    owner: Owner,
) -> PyResult<Py<PyAny>> {
    let len = isize::try_from(len)?;
    let class = class(py)?;
    // SAFETY: a type of ours, whose objects are as large as it says.
    let object = unsafe { c::PyType_GenericAlloc(class.as_type_ptr(), 0) };
    // SAFETY: a new reference, or NULL with an exception set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    let lent = Box::into_raw(Box::new(Lent { owner, birth: Birth::here() }));
    // SAFETY: nobody else knows the object yet.
    unsafe {
        let this = object.as_ptr().cast::<Object>();
        (*this).at = at;
        (*this).len = len;
        (*this).writable = writable;
        (*this).lent = lent;
    }
    Ok(object.unbind())
}

fn make(py: Python<'_>) -> PyResult<Py<PyType>> {
    let method = |name: &'static CStr, function, flags, doc: &'static CStr| c::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: function,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    };
    let lend = c::PyMethodDefPointer { PyCFunctionWithKeywords: dlpack };
    let device = c::PyMethodDefPointer { PyCFunction: dlpack_device };
    // The interpreter keeps the list.
    let methods = Box::leak(Box::new([
        method(
            c"__dlpack__",
            lend,
            c::METH_VARARGS | c::METH_KEYWORDS,
            c"The memory as a tensor of bytes.",
        ),
        method(c"__dlpack_device__", device, c::METH_NOARGS, c"Host memory."),
        c::PyMethodDef::zeroed(),
    ]));
    let slot = |slot, pfunc: *mut c_void| c::PyType_Slot { slot, pfunc };
    let doc = c"Memory of a block: a buffer, and a DLPack tensor of bytes.";
    let mut slots = [
        slot(c::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        slot(c::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(c::Py_sq_length, length as *mut c_void),
        slot(GET_BUFFER, get_buffer as *mut c_void),
        slot(0, ptr::null_mut()),
    ];
    let mut spec = c::PyType_Spec {
        name: c"tranship.Memory".as_ptr(),
        basicsize: size_of::<Object>() as c_int,
        itemsize: 0,
        flags: (c::Py_TPFLAGS_DEFAULT | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification and its slots live through the call, which copies them.
    let class = unsafe { c::PyType_FromSpec(&raw mut spec) };
    // SAFETY: a new reference, or NULL with an exception set.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, class) }?;
    Ok(class.cast_into::<PyType>()?.unbind())
}

unsafe extern "C" fn dealloc(this: *mut c::PyObject) {
    // SAFETY: the last reference to an object of this type; its box, if it got one, is ours.
    unsafe {
        let lent = (*this.cast::<Object>()).lent;
        if !lent.is_null() {
            let Lent { owner, birth } = *Box::from_raw(lent);
            if birth.is_elsewhere() {
                // What is behind it belongs to the parent.
                std::mem::forget(owner);
            } else {
                // A panic must not leave this function.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(owner)));
            }
        }
        let class = c::Py_TYPE(this);
        c::PyObject_Free(this.cast());
        c::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn length(this: *mut c::PyObject) -> isize {
    // SAFETY: an object of this type.
    unsafe { (*this.cast::<Object>()).len }
}

unsafe extern "C" fn get_buffer(
    this: *mut c::PyObject,
    view: *mut PyBuffer,
    flags: c_int,
) -> c_int {
    // SAFETY: an object of this type, and a view to be filled; it refuses a writable view of what is not.
    unsafe {
        let object = &*this.cast::<Object>();
        PyBuffer_FillInfo(
            view,
            this,
            object.at.cast(),
            object.len,
            c_int::from(!object.writable),
            flags,
        )
    }
}

unsafe extern "C" fn dlpack_device(
    _this: *mut c::PyObject,
    _: *mut c::PyObject,
) -> *mut c::PyObject {
    // SAFETY: called with the interpreter lock held.
    let py = unsafe { Python::assume_attached() };
    give(py, || Ok(HOST.into_pyobject(py)?.into_any()))
}

unsafe extern "C" fn dlpack(
    this: *mut c::PyObject,
    _args: *mut c::PyObject,
    named: *mut c::PyObject,
) -> *mut c::PyObject {
    // SAFETY: called with the interpreter lock held, with an object of this type and a dictionary or NULL.
    let (py, this, named) = unsafe {
        let py = Python::assume_attached();
        (py, Bound::from_borrowed_ptr(py, this), Bound::from_borrowed_ptr_or_opt(py, named))
    };
    give(py, || {
        let named = named.as_ref().map(|named| named.cast::<PyDict>()).transpose()?;
        let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            let value = named.map(|named| named.get_item(name)).transpose()?.flatten();
            Ok(value.filter(|value| !value.is_none()))
        };
        if let Some(device) = get("dl_device")?
            && device.extract::<(i32, i32)>()? != HOST
        {
            return Err(PyBufferError::new_err(
                "the memory is the host's; it cannot be lent elsewhere",
            ));
        }
        if let Some(copy) = get("copy")?
            && copy.extract::<bool>()?
        {
            return Err(PyBufferError::new_err(
                "the memory is lent, not copied; copy it with bytes()",
            ));
        }
        let newest = get("max_version")?.map(|it| it.extract::<(u32, u32)>()).transpose()?;
        // SAFETY: an object of this type.
        let writable = unsafe { (*this.as_ptr().cast::<Object>()).writable };
        match newest {
            Some((1.., _)) => capsule(&this, NAME_VERSIONED, |tensor, context| Versioned {
                version: [1, 0],
                context,
                deleter: Some(delete::<Versioned>),
                flags: if writable { 0 } else { READ_ONLY },
                tensor,
            }),
            _ if writable => capsule(&this, NAME, |tensor, context| DlManagedTensor {
                tensor,
                context,
                deleter: Some(delete::<DlManagedTensor>),
            }),
            _ => Err(PyBufferError::new_err(
                "the memory is read-only, which DLPack before 1.0 cannot say; use the buffer protocol",
            )),
        }
    })
}

/// Runs `f` where a panic must not leave; NULL with an exception set when it fails.
fn give<'py>(py: Python<'py>, f: impl FnOnce() -> PyResult<Bound<'py, PyAny>>) -> *mut c::PyObject {
    let result = catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(PyRuntimeError::new_err("a defect of tranship: it panicked")));
    match result {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

trait Managed {
    fn context(&self) -> *mut c_void;
}

impl Managed for DlManagedTensor {
    fn context(&self) -> *mut c_void {
        self.context
    }
}

impl Managed for Versioned {
    fn context(&self) -> *mut c_void {
        self.context
    }
}

/// What a tensor that was lent points into.
struct Context {
    shape: [i64; 1],
    strides: [i64; 1],
    memory: Py<PyAny>,
}

fn capsule<'py, M: Managed>(
    this: &Bound<'py, PyAny>,
    name: &'static CStr,
    managed: impl FnOnce(DlTensor, *mut c_void) -> M,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: an object of this type.
    let object = unsafe { &*this.as_ptr().cast::<Object>() };
    let memory = this.clone().unbind();
    let context = Box::new(Context { shape: [object.len as i64], strides: [1], memory });
    let context = Box::into_raw(context);
    // SAFETY: not null; freed with the tensor.
    let (shape, strides) = unsafe { (&raw mut (*context).shape, &raw mut (*context).strides) };
    let tensor = DlTensor {
        data: object.at.cast(),
        device: DlDevice { kind: HOST.0, id: HOST.1 },
        ndim: 1,
        // kDLUInt.
        dtype: DlDataType { code: 1, bits: 8, lanes: 1 },
        shape: shape.cast(),
        strides: strides.cast(),
        byte_offset: 0,
    };
    let managed = Box::into_raw(Box::new(managed(tensor, context.cast())));
    // SAFETY: a name that stays, and a function that frees what nobody took.
    let capsule = unsafe { c::PyCapsule_New(managed.cast(), name.as_ptr(), Some(untaken::<M>)) };
    // SAFETY: a new reference, or NULL with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(this.py(), capsule) }.inspect_err(|_| {
        // SAFETY: nobody else has it.
        unsafe { delete::<M>(managed) }
    })
}

/// Frees a tensor; any thread may call it.
unsafe extern "C" fn delete<M: Managed>(managed: *mut M) {
    // SAFETY: made of two boxes in `capsule`, and freed once, by whoever took the tensor.
    let context = unsafe {
        let managed = Box::from_raw(managed);
        Box::from_raw(managed.context().cast::<Context>())
    };
    Python::attach(|_| drop(context.memory));
}

/// A capsule goes: its tensor too, unless somebody took it, who renames the capsule.
unsafe extern "C" fn untaken<M: Managed>(capsule: *mut c::PyObject) {
    for name in [NAME, NAME_VERSIONED] {
        // SAFETY: a capsule; a type's tensors have one name only.
        unsafe {
            let name: *const c_char = name.as_ptr();
            if c::PyCapsule_IsValid(capsule, name) == 1 {
                delete::<M>(c::PyCapsule_GetPointer(capsule, name).cast());
                return;
            }
        }
    }
}
