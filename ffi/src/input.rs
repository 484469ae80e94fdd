//! What comes over the boundary.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::status::{Failure, Result, tranship_status_t as Status};

/// The longest text, bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 10;
/// The most items of one list.
pub(crate) const ITEMS_MAX: usize = 1 << 22;
/// The longest wait: every wait has an end.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest option struct that is taken for one.
const OPTIONS_BYTES_MAX: usize = 4096;

/// A text, or none for NULL.
///
/// # Safety
/// `text` is NULL or ends with a NUL, and does not change while the answer is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it ends with a NUL, so says the caller; no byte after that is looked at.
    let len = unsafe { libc::strnlen(text, TEXT_BYTES_MAX + 1) };
    if len > TEXT_BYTES_MAX {
        return Err(Failure::invalid(format!("{what} is longer than {TEXT_BYTES_MAX} bytes")));
    }
    // SAFETY: so many bytes were just seen there.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(Failure::invalid(format!("{what} is no UTF-8: {error}"))),
    }
}

/// A list; NULL will do for one without items.
///
/// # Safety
/// `len` items at `at` can be read and do not change while the answer is used.
pub(crate) unsafe fn list<'a, T: Copy>(at: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    check_list(at, len, what)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned and of a possible length; readable and unchanging, so says the caller.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}

/// Bytes, of any number that can be.
///
/// # Safety
/// As for [`list`].
pub(crate) unsafe fn bytes<'a>(at: *const u8, len: usize, what: &str) -> Result<&'a [u8]> {
    check_bytes(at, len, what)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: as in `list`.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}

pub(crate) fn check_bytes(at: *const u8, len: usize, what: &str) -> Result {
    if len > isize::MAX as usize {
        return Err(Failure::invalid(format!("{what} of {len} bytes: more than can be addressed")));
    }
    if len > 0 && at.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL, and {len} bytes were promised")));
    }
    Ok(())
}

pub(crate) fn check_list<T>(at: *const T, len: usize, what: &str) -> Result {
    if len > ITEMS_MAX {
        let text = format!("{len} {what}: at most {ITEMS_MAX} in one call; use several");
        return Err(Failure::invalid(text));
    }
    if len == 0 {
        return Ok(());
    }
    if at.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL, and {len} were promised")));
    }
    aligned(at, what)
}

pub(crate) fn aligned<T>(at: *const T, what: &str) -> Result {
    if at.is_aligned() {
        return Ok(());
    }
    Err(Failure::invalid(format!("{what} is not aligned to {} bytes", align_of::<T>())))
}

/// A time to wait.
pub(crate) fn wait(us: u64) -> Result<Duration> {
    let span = Duration::from_micros(us);
    if span > WAIT_MAX {
        return Err(Failure::invalid(format!(
            "a wait of {us} µs is longer than a day; wait again"
        )));
    }
    Ok(span)
}

/// A time of which 0 is "as usual".
pub(crate) fn span(us: u64) -> Result<Option<Duration>> {
    Ok(Some(wait(us)?).filter(|_| us != 0))
}

/// A struct that begins with its size.
///
/// # Safety
/// Plain data without padding that matters, whose first field is a `usize` and for which all zeros is
/// a value.
pub(crate) unsafe trait Options: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size in the first version that had it.
    const BYTES_MIN: usize;
}

macro_rules! option_structs {
    ($($name:ident: $bytes:literal;)*) => {
        $(
            // SAFETY: integers and pointers alone, of which all zeros is a value; the first is `size`.
            unsafe impl $crate::input::Options for $name {
                const NAME: &'static str = stringify!($name);
                const BYTES_MIN: usize = $bytes;
            }
            const _: () = assert!(size_of::<$name>() >= $bytes && std::mem::offset_of!($name, size) == 0);
        )*
    };
}
pub(crate) use option_structs;

/// Options as they were when the caller was compiled: fields that it does not know are zero, which is "as
/// usual"; such that this library does not know must be, as with `openat2(2)`.
///
/// # Safety
/// `from` is NULL or as many bytes as its first field says can be read there.
pub(crate) unsafe fn options<T: Options>(from: *const T) -> Result<T> {
    let mut all = MaybeUninit::<T>::zeroed();
    if !from.is_null() {
        // SAFETY: as the caller says.
        let size = unsafe { size_of_options(from) }?;
        let known = size.min(size_of::<T>());
        // SAFETY: the caller vouches for `size` bytes, and no more than there is room for are copied.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), all.as_mut_ptr().cast(), known) };
        // SAFETY: the rest of those bytes.
        let rest =
            unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
        if rest.iter().any(|byte| *byte != 0) {
            let text = format!(
                "{} has {size} bytes, of which this library knows {known}, and the rest is not 0; \
                 install a newer libtranship",
                T::NAME
            );
            return Err(Failure::new(Status::TRANSHIP_VERSION, text));
        }
    }
    // SAFETY: all zeros, or what the caller has put over them.
    Ok(unsafe { all.assume_init() })
}

/// The size that a struct says it has.
///
/// # Safety
/// Its first field can be read.
pub(crate) unsafe fn size_of_options<T: Options>(at: *const T) -> Result<usize> {
    aligned(at, T::NAME)?;
    // SAFETY: not NULL, aligned; the first field is a `usize`.
    let size = unsafe { at.cast::<usize>().read() };
    if (T::BYTES_MIN..=OPTIONS_BYTES_MAX).contains(&size) {
        return Ok(size);
    }
    let (name, min) = (T::NAME, T::BYTES_MIN);
    Err(Failure::invalid(format!(
        "{name} says it has {size} bytes, and has {min} at least; begin with TRANSHIP_INIT({name})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    #[repr(C)]
    struct Now {
        size: usize,
        a: u64,
        b: u64,
    }

    option_structs! { Now: 16; }

    #[repr(C)]
    struct Later {
        now: Now,
        c: u64,
    }

    fn read(size: usize, c: u64) -> Result<Now> {
        let later = Later { now: Now { size, a: 1, b: 2 }, c };
        // SAFETY: there are 32 bytes, and no size beyond that is read.
        unsafe { options((&raw const later).cast::<Now>()) }
    }

    #[test]
    fn old_and_new_callers_are_understood_and_others_refused() {
        let old = read(16, 9).unwrap();
        assert_eq!((old.a, old.b), (1, 0), "what it does not know is as usual");
        let same = read(24, 9).unwrap();
        assert_eq!((same.a, same.b), (1, 2));
        assert_eq!(read(32, 0).unwrap().b, 2, "newer, and the new field is as usual");
        assert_eq!(read(32, 9).unwrap_err().status(), Status::TRANSHIP_VERSION);
        for wrong in [0, 8, 15, OPTIONS_BYTES_MAX + 1, usize::MAX] {
            assert_eq!(read(wrong, 0).unwrap_err().status(), Status::TRANSHIP_INVALID);
        }
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { options::<Now>(std::ptr::null()) }.unwrap().size, 0);
    }
}
