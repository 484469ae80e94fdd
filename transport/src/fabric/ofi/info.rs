//! What libfabric has to offer (`fi_getinfo(3)`).

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;

use tranship_ofi_sys as sys;

/// The library, and one thing it offers.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) library: Arc<sys::Fabric>,
    raw: *mut sys::fi_info,
}

// SAFETY: a plain structure of its own, which nobody changes.
unsafe impl Send for Info {}
// SAFETY: as above.
unsafe impl Sync for Info {}

impl Info {
    /// What the library offers that one-sided transfers with immediates can be built on: from this
    /// provider, or from any; with addresses of this host, if it is named.
    ///
    /// # Errors
    /// When it has nothing: why.
    pub(super) fn all(
        library: &Arc<sys::Fabric>,
        provider: Option<&str>,
        source: Option<&str>,
    ) -> Result<Vec<Self>, String> {
        let text = |it: &str| CString::new(it).map_err(|_| format!("a zero in {it:?}"));
        let (provider, source) = (provider.map(text).transpose()?, source.map(text).transpose()?);
        let hints = library.allocinfo();
        if hints.is_null() {
            return Err("libfabric has no memory for its hints".to_owned());
        }
        let hints = Self { library: Arc::clone(library), raw: hints };
        // SAFETY: `fi_dupinfo` of null makes all of these (`fi_getinfo(3)`, fi_allocinfo), and the
        // name is a copy that `fi_freeinfo` frees.
        unsafe {
            let it = &mut *hints.raw;
            it.caps = sys::FI_MSG
                | sys::FI_RMA
                | sys::FI_READ
                | sys::FI_WRITE
                | sys::FI_REMOTE_READ
                | sys::FI_REMOTE_WRITE;
            it.mode = sys::FI_CONTEXT | sys::FI_CONTEXT2;
            (*it.ep_attr).type_ = sys::FI_EP_RDM;
            let domain = &mut *it.domain_attr;
            domain.threading = sys::FI_THREAD_DOMAIN;
            domain.mr_mode = MR_MODES;
            domain.cq_data_size = 4;
            // Every place costs some providers a page or four, and they have thousands unless told.
            (*it.tx_attr).size = QUEUE_PLACES;
            (*it.rx_attr).size = QUEUE_PLACES;
            if let Some(provider) = &provider {
                // The shm provider would write to a peer's addresses without asking it.
                if provider.as_bytes() == b"shm" {
                    domain.mr_mode &= !sys::FI_MR_VIRT_ADDR;
                }
                (*it.fabric_attr).prov_name = libc::strdup(provider.as_ptr());
            }
        }
        let mut found = ptr::null_mut();
        let node = source.as_ref().map_or(ptr::null(), |it| it.as_ptr());
        let flags = if source.is_some() { sys::FI_SOURCE } else { 0 };
        // SAFETY: the hints are complete, and the texts end with a zero.
        let rc = unsafe {
            library.fi_getinfo(
                library.api_version(),
                node,
                ptr::null(),
                flags,
                hints.raw,
                &mut found,
            )
        };
        if rc != 0 {
            let provider = provider.as_ref().map_or("any provider", |it| it.to_str().unwrap_or(""));
            return Err(format!(
                "no endpoint of {provider} can do one-sided writes with immediates: {}",
                library.error(rc).to_string_lossy()
            ));
        }
        let list = Self { library: Arc::clone(library), raw: found };
        let mut all = Vec::new();
        let mut next = list.raw;
        while !next.is_null() {
            // SAFETY: an element of the list, which outlives this loop.
            let (copy, after) = unsafe { (library.fi_dupinfo(next), (*next).next) };
            if !copy.is_null() {
                all.push(Self { library: Arc::clone(library), raw: copy });
            }
            next = after;
        }
        Ok(all)
    }

    /// What an error means.
    pub(super) fn error(&self, rc: i32) -> String {
        self.library.error(rc).to_string_lossy().into_owned()
    }

    pub(super) fn raw(&self) -> &sys::fi_info {
        // SAFETY: it lives as long as this.
        unsafe { &*self.raw }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::fi_info {
        self.raw
    }

    pub(super) fn domain_attr(&self) -> &sys::fi_domain_attr {
        // SAFETY: `fi_getinfo` fills it in.
        unsafe { &*self.raw().domain_attr }
    }

    pub(super) fn tx_attr(&self) -> &sys::fi_tx_attr {
        // SAFETY: as above.
        unsafe { &*self.raw().tx_attr }
    }

    pub(super) fn ep_attr(&self) -> &sys::fi_ep_attr {
        // SAFETY: as above.
        unsafe { &*self.raw().ep_attr }
    }

    fn fabric_attr(&self) -> &sys::fi_fabric_attr {
        // SAFETY: as above.
        unsafe { &*self.raw().fabric_attr }
    }

    /// The provider's name: `tcp;ofi_rxm`.
    pub(super) fn provider(&self) -> String {
        text(self.fabric_attr().prov_name)
    }

    /// The domain's name: an interface, or a device.
    pub(super) fn domain(&self) -> String {
        text(self.domain_attr().name)
    }

    /// Whether it stands on the sockets of the system, as our streams do.
    pub(super) fn is_ip(&self) -> bool {
        let provider = self.provider();
        provider.contains("tcp") || provider.contains("udp") || provider.contains("net")
    }

    /// Whether a mode of memory registration is asked of us.
    pub(super) fn needs(&self, mode: i32) -> bool {
        self.domain_attr().mr_mode & mode != 0
    }
}

/// Requests that a queue of an endpoint holds.
const QUEUE_PLACES: usize = 128;

/// What we can do about registrations.
const MR_MODES: i32 = sys::FI_MR_LOCAL
    | sys::FI_MR_VIRT_ADDR
    | sys::FI_MR_ALLOCATED
    | sys::FI_MR_PROV_KEY
    | sys::FI_MR_ENDPOINT;

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: it came from the library, and nothing of it is used any more.
        unsafe { self.library.fi_freeinfo(self.raw) };
    }
}

fn text(it: *const libc::c_char) -> String {
    if it.is_null() {
        return String::new();
    }
    // SAFETY: the library's texts end with a zero.
    unsafe { CStr::from_ptr(it) }.to_string_lossy().into_owned()
}
