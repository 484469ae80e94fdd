//! A device that is open, and the objects of it: each is destroyed when it is dropped.

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use tranship_verbs_sys as sys;

/// The library; loaded once.
pub(super) fn library() -> Result<&'static sys::Verbs, String> {
    static LIBRARY: OnceLock<Result<sys::Verbs, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| sys::Verbs::load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(Clone::clone)
}

/// A device with a protection domain.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) verbs: &'static sys::Verbs,
    pub(super) pd: NonNull<sys::ibv_pd>,
    pub(super) context: sys::devices::Context<'static>,
    /// Whether a driver is played that takes dma-bufs.
    #[cfg(feature = "conformance")]
    pub(super) plays_dma_bufs: bool,
}

// SAFETY: libibverbs' objects may be used from any thread (`ibv_create_qp(3)` and others).
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    pub(super) fn open(
        verbs: &'static sys::Verbs,
        context: sys::devices::Context<'static>,
    ) -> io::Result<Self> {
        // SAFETY: the device is open.
        let pd = unsafe { verbs.ibv_alloc_pd(context.as_ptr()) };
        let pd = NonNull::new(pd).ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            verbs,
            pd,
            context,
            #[cfg(feature = "conformance")]
            plays_dma_bufs: false,
        })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: whoever made something of it holds it, so that nothing is left.
        unsafe { self.verbs.ibv_dealloc_pd(self.pd.as_ptr()) };
    }
}

/// An object of a domain, and how it is destroyed.
pub(super) trait Kind {
    /// # Safety
    /// The object exists and is not used again.
    unsafe fn destroy(verbs: &sys::Verbs, object: *mut Self) -> i32;
}

/// One object.
#[derive(Debug)]
pub(super) struct Object<T: Kind> {
    raw: NonNull<T>,
    domain: Arc<Domain>,
}

// SAFETY: as for the domain.
unsafe impl<T: Kind> Send for Object<T> {}

impl<T: Kind> Object<T> {
    /// What a call made.
    ///
    /// # Errors
    /// `errno` when that is null.
    pub(super) fn new(domain: &Arc<Domain>, raw: *mut T) -> io::Result<Self> {
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { raw, domain: Arc::clone(domain) })
    }

    pub(super) fn as_ptr(&self) -> *mut T {
        self.raw.as_ptr()
    }
}

impl<T: Kind> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: it exists, and this was the only handle.
        let error = unsafe { T::destroy(self.domain.verbs, self.raw.as_ptr()) };
        if error != 0 {
            let error = io::Error::from_raw_os_error(error);
            tracing::warn!("{} is not destroyed: {error}", std::any::type_name::<T>());
        }
    }
}

macro_rules! kinds {
    ($($kind:ident: $destroy:ident),* $(,)?) => {$(
        impl Kind for sys::$kind {
            unsafe fn destroy(verbs: &sys::Verbs, object: *mut Self) -> i32 {
                // SAFETY: the caller's promise.
                unsafe { verbs.$destroy(object) }
            }
        }
    )*};
}

kinds! {
    ibv_mr: ibv_dereg_mr,
    ibv_cq: ibv_destroy_cq,
    ibv_srq: ibv_destroy_srq,
    ibv_qp: ibv_destroy_qp,
    ibv_comp_channel: ibv_destroy_comp_channel,
}

impl Kind for sys::ibv_mw {
    unsafe fn destroy(_: &sys::Verbs, object: *mut Self) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { sys::Verbs::dealloc_mw(object) }
    }
}
