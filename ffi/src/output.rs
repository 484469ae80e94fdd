//! What goes back over the boundary.

use std::ffi::c_char;

use crate::input::{self, Options, aligned, check_list, size_of_options};
use crate::status::{Failure, Result, tranship_status_t as Status};

/// Where an answer goes.
pub(crate) struct Out<T> {
    at: *mut T,
}

impl<T> Out<T> {
    /// # Safety
    /// `at` is NULL, or a `T` can be written there until this is dropped.
    pub(crate) unsafe fn new(at: *mut T, what: &str) -> Result<Self> {
        if at.is_null() {
            return Err(Failure::invalid(format!("{what} is NULL, and an answer goes there")));
        }
        aligned(at, what)?;
        Ok(Self { at })
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: not NULL and aligned, and writable, as whoever made this said.
        unsafe { self.at.write(value) };
    }
}

impl<T> Out<*mut T> {
    /// The place of a handle: NULL until there is one.
    ///
    /// # Safety
    /// As for [`Out::new`].
    pub(crate) unsafe fn handle(at: *mut *mut T, what: &str) -> Result<Self> {
        // SAFETY: as the caller says.
        let out = unsafe { Self::new(at, what) }?;
        out.set(std::ptr::null_mut());
        Ok(out)
    }
}

/// Where a list of answers goes.
pub(crate) struct OutList<T> {
    at: *mut T,
    len: usize,
}

impl<T> OutList<T> {
    /// # Safety
    /// So many `T`s can be written at `at` until this is dropped.
    pub(crate) unsafe fn new(at: *mut T, len: usize, what: &str) -> Result<Self> {
        check_list(at, len, what)?;
        Ok(Self { at, len })
    }

    /// One that may be NULL, for answers that nobody wants.
    ///
    /// # Safety
    /// As for [`OutList::new`].
    pub(crate) unsafe fn optional(at: *mut T, len: usize, what: &str) -> Result<Self> {
        if at.is_null() {
            return Ok(Self { at, len: 0 });
        }
        // SAFETY: as the caller says.
        unsafe { Self::new(at, len, what) }
    }

    pub(crate) fn set(&self, index: usize, value: T) {
        if index < self.len {
            // SAFETY: inside of what was promised.
            unsafe { self.at.add(index).write(value) };
        }
    }

    pub(crate) fn fill(&self, values: impl IntoIterator<Item = T>) {
        for (index, value) in values.into_iter().enumerate() {
            self.set(index, value);
        }
    }
}

/// Puts a text and its NUL into a buffer. NULL and 0 ask for the length alone.
///
/// # Safety
/// `capacity` bytes can be written at `buffer`, and `len` is NULL or can be written.
pub(crate) unsafe fn text(
    answer: &str,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Result {
    let zero_ended = [answer.as_bytes(), b"\0"].concat();
    // SAFETY: as the caller says.
    unsafe { put(&zero_ended, answer.len(), buffer.cast(), capacity, len) }
}

/// Puts bytes into a buffer. NULL and 0 ask for the length alone.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn bytes(
    answer: &[u8],
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> Result {
    // SAFETY: as the caller says.
    unsafe { put(answer, answer.len(), buffer, capacity, len) }
}

unsafe fn put(
    answer: &[u8],
    told: usize,
    buffer: *mut u8,
    capacity: usize,
    len: *mut usize,
) -> Result {
    input::check_bytes(buffer, capacity, "buffer")?;
    if !len.is_null() {
        aligned(len, "len")?;
        // SAFETY: aligned, and writable as the caller says.
        unsafe { len.write(told) };
    }
    if buffer.is_null() {
        return Ok(());
    }
    if answer.len() > capacity {
        let text = format!("{} bytes do not fit into a buffer of {capacity}", answer.len());
        return Err(Failure::new(Status::TRANSHIP_TOO_SMALL, text));
    }
    // SAFETY: `capacity` bytes can be written there, and these are no more.
    unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), buffer, answer.len()) };
    Ok(())
}

/// Fills a struct that begins with its size, as far as the caller knows it.
///
/// # Safety
/// `at` is NULL, or as many bytes as its first field says can be written there.
pub(crate) unsafe fn sized<T: Options>(at: *mut T, mut value: T, what: &str) -> Result {
    if at.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL, and an answer goes there")));
    }
    // SAFETY: not NULL, and as the caller says.
    let size = unsafe { size_of_options(at.cast_const()) }?;
    // SAFETY: the first field of every such struct is its size, as the caller gave it.
    unsafe { (&raw mut value).cast::<usize>().write(size) };
    let known = size.min(size_of::<T>());
    // SAFETY: the caller vouches for `size` bytes.
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), at.cast(), known) };
    Ok(())
}
