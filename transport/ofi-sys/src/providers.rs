//! The providers that can do what a one-sided fabric needs.

use std::ffi::{CStr, c_char};
use std::ptr;

use super::{
    FI_CONTEXT, FI_CONTEXT2, FI_ENODATA, FI_EP_RDM, FI_MR_ALLOCATED, FI_MR_ENDPOINT, FI_MR_LOCAL,
    FI_MR_PROV_KEY, FI_MR_VIRT_ADDR, FI_MSG, FI_RMA, Fabric, fi_info,
};

/// The bits of `mr_mode` that a program has to accept for all of these providers to be offered.
pub const MR_MODE: i32 =
    FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;

/// The bits of `mode`: room for the provider in what an operation's `context` points to ([`super::fi_context2`]).
pub const MODE: u64 = FI_CONTEXT | FI_CONTEXT2;

/// A provider over one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// `efa`, `tcp;ofi_rxm`.
    pub name: String,
    /// The device or interface.
    pub domain: String,
    /// Bytes of an immediate with a write; none if 0.
    pub immediate_bytes: usize,
    /// What it asks of registrations (`FI_MR_…`).
    pub mr_mode: i32,
    /// Bytes that a transfer may have.
    pub transfer_bytes_max: usize,
}

impl Fabric {
    /// The providers with reliable datagrams, messages and one-sided transfers. Those whose writes carry no immediate have `immediate_bytes` 0.
    ///
    /// # Errors
    /// `fi_getinfo`'s error, positive; that there is none is no error.
    pub fn providers(&self) -> Result<Vec<Provider>, i32> {
        let hints = self.allocinfo();
        if hints.is_null() {
            return Err(libc::ENOMEM);
        }
        let mut list: *mut fi_info = ptr::null_mut();
        // SAFETY: a new entry has all its parts; it is freed once, and `list` can be written.
        let answer = unsafe {
            (*hints).caps = FI_MSG | FI_RMA;
            (*(*hints).ep_attr).type_ = FI_EP_RDM;
            (*(*hints).domain_attr).mr_mode = MR_MODE;
            (*hints).mode = MODE;
            let version = self.api_version();
            let answer =
                self.fi_getinfo(version, ptr::null(), ptr::null(), 0, hints, &raw mut list);
            self.fi_freeinfo(hints);
            answer
        };
        match -answer {
            0 => {}
            FI_ENODATA => return Ok(Vec::new()),
            error => return Err(error),
        }
        let mut found = Vec::new();
        let mut next = list;
        // SAFETY: each entry is null or valid, with all its parts, until the list is freed.
        while let Some(entry) = unsafe { next.as_ref() } {
            next = entry.next;
            // SAFETY: as above.
            found.push(unsafe { provider(entry) });
        }
        // SAFETY: the list came from the function and is freed once; nothing of it is borrowed.
        unsafe { self.fi_freeinfo(list) };
        found.dedup();
        Ok(found)
    }
}

/// # Safety
/// The entry has all its parts.
unsafe fn provider(entry: &fi_info) -> Provider {
    // SAFETY: the caller's promise.
    unsafe {
        let (fabric, domain, ep) = (&*entry.fabric_attr, &*entry.domain_attr, &*entry.ep_attr);
        Provider {
            name: text(fabric.prov_name),
            domain: text(domain.name),
            immediate_bytes: domain.cq_data_size,
            mr_mode: domain.mr_mode,
            transfer_bytes_max: ep.max_msg_size,
        }
    }
}

/// # Safety
/// Null, or a C string.
unsafe fn text(words: *const c_char) -> String {
    match words.is_null() {
        true => String::new(),
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned(),
    }
}
