//! Objects of libfabric, closed when they are dropped.

use std::ptr::{self, NonNull};

use tranship_ofi_sys as sys;

/// One object; `T` is its structure, which begins with a `fid`.
pub(super) struct Object<T>(NonNull<T>);

impl<T> Object<T> {
    /// One that a call makes.
    ///
    /// # Errors
    /// What the call returned when that is not 0.
    pub(super) fn new(make: impl FnOnce(*mut *mut T) -> i32) -> Result<Self, i32> {
        let mut object = ptr::null_mut();
        match make(&mut object) {
            0 => NonNull::new(object).map(Self).ok_or(-sys::FI_ENOMEM),
            rc => Err(rc),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// What all objects begin with.
    pub(super) fn fid(&self) -> *mut sys::fid {
        self.0.as_ptr().cast()
    }
}

impl<T> Object<T> {
    /// Closes it; whether it is closed.
    pub(super) fn close(self) -> bool {
        std::mem::ManuallyDrop::new(self).end()
    }

    fn end(&mut self) -> bool {
        // SAFETY: it is open, and what was made of it has been closed before.
        let rc = unsafe { sys::Fabric::close(self.fid()) };
        if rc != 0 {
            tracing::warn!("fi_close: error {rc}; something of libfabric's stays open");
        }
        rc == 0
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        self.end();
    }
}
