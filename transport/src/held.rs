//! What a call may borrow, and has to keep only when it goes on afterwards.

use std::fmt;
use std::ops::Deref;

/// Something that is borrowed from the caller, or was handed over by it.
///
/// Most small transfers end inside of the call that starts them. One that is described by
/// references then costs no reference count at all; what goes on is cloned.
pub enum Held<'a, T> {
    /// The caller's.
    Borrowed(&'a T),
    /// Handed over.
    Owned(T),
}

impl<T: Clone> Held<'_, T> {
    /// The thing itself; cloned when it was borrowed.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Borrowed(it) => it.clone(),
            Self::Owned(it) => it,
        }
    }

    /// One that lasts.
    pub(crate) fn keep(&self) -> Held<'static, T> {
        Held::Owned((**self).clone())
    }

    pub(crate) fn into_owned(self) -> Held<'static, T> {
        Held::Owned(self.into_inner())
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(it) => it,
            Self::Owned(it) => it,
        }
    }
}

impl<T> From<T> for Held<'_, T> {
    fn from(it: T) -> Self {
        Self::Owned(it)
    }
}

impl<'a, T> From<&'a T> for Held<'a, T> {
    fn from(it: &'a T) -> Self {
        Self::Borrowed(it)
    }
}

impl<T: fmt::Debug> fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
