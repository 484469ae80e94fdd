//! Addresses of a port, with the protocol each speaks.

use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::io;
use std::mem;
use std::net::Ipv6Addr;

use super::{
    IBV_GID_TYPE_IB, IBV_GID_TYPE_ROCE_V1, IBV_GID_TYPE_ROCE_V2, IBV_LINK_LAYER_ETHERNET, Verbs,
    ibv_context, ibv_gid, ibv_gid_entry, ibv_port_attr,
};

/// What packets to an address look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GidType {
    /// InfiniBand, or iWARP.
    Ib,
    /// Ethernet without a router.
    RoceV1,
    /// UDP over IP.
    RoceV2,
}

impl fmt::Display for GidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ib => "IB",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
        })
    }
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gid {
    /// Where it is in the port's table.
    pub index: u32,
    /// What packets to it look like.
    pub kind: GidType,
    /// The 16 bytes, as they go over the wire.
    pub raw: [u8; 16],
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.raw);
        match address.to_ipv4_mapped() {
            Some(address) => write!(f, "{} {} {address}", self.index, self.kind),
            None => write!(f, "{} {} {address}", self.index, self.kind),
        }
    }
}

impl Verbs {
    /// `ibv_query_gid_ex`: one entry of a port's table, `None` where that is empty. An rdma-core before 32 lacks it, and
    /// the kernel is asked for the protocol.
    ///
    /// # Errors
    /// What the device or the kernel says.
    ///
    /// # Safety
    /// `context` is an open device.
    pub unsafe fn query_gid(
        &self,
        context: *mut ibv_context,
        port: u8,
        index: u32,
    ) -> io::Result<Option<Gid>> {
        if self._ibv_query_gid_ex.is_err() {
            // SAFETY: the caller's promise.
            return unsafe { self.query_gid_by_sysfs(context, port, index) };
        }
        // SAFETY: the function fills in an entry of the size it is told, and zeroes are one.
        let (answer, entry) = unsafe {
            let mut entry: ibv_gid_entry = mem::zeroed();
            let size = size_of::<ibv_gid_entry>();
            let answer =
                self._ibv_query_gid_ex(context, u32::from(port), index, &raw mut entry, 0, size);
            (answer, entry)
        };
        match answer {
            0 => {
                // SAFETY: all bytes of an address are set.
                let raw = unsafe { entry.gid.raw };
                Ok(kind_of(entry.gid_type).map(|kind| Gid { index, kind, raw }))
            }
            libc::ENODATA => Ok(None),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// # Safety
    /// `context` is an open device.
    unsafe fn query_gid_by_sysfs(
        &self,
        context: *mut ibv_context,
        port: u8,
        index: u32,
    ) -> io::Result<Option<Gid>> {
        let place = libc::c_int::try_from(index).map_err(io::Error::other)?;
        // SAFETY: the function fills in an address, and a device has a name as long as it is open.
        let (answer, raw, device) = unsafe {
            let mut gid: ibv_gid = mem::zeroed();
            let answer = self.ibv_query_gid(context, port, place, &raw mut gid);
            let name = CStr::from_ptr(self.ibv_get_device_name((*context).device));
            (answer, gid.raw, name.to_string_lossy())
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        if raw == [0; 16] {
            return Ok(None);
        }
        let path = format!("/sys/class/infiniband/{device}/ports/{port}/gid_attrs/types/{index}");
        match fs::read_to_string(path) {
            Ok(text) => {
                // SAFETY: the caller's promise; zeroes are a structure of numbers, which is filled in.
                let ethernet = unsafe {
                    let mut attributes: ibv_port_attr = mem::zeroed();
                    self.query_port(context, port, &raw mut attributes) == 0
                        && i32::from(attributes.link_layer) == IBV_LINK_LAYER_ETHERNET
                };
                Ok(kind_in(&text, ethernet).map(|kind| Gid { index, kind, raw }))
            }
            // The kernel says so of an entry that is not in use.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn kind_of(kind: u32) -> Option<GidType> {
    match kind {
        IBV_GID_TYPE_IB => Some(GidType::Ib),
        IBV_GID_TYPE_ROCE_V1 => Some(GidType::RoceV1),
        IBV_GID_TYPE_ROCE_V2 => Some(GidType::RoceV2),
        _ => None,
    }
}

/// The kernel's words for it; one of them for two kinds, which the link tells apart.
pub(crate) fn kind_in(text: &str, ethernet: bool) -> Option<GidType> {
    match text.trim() {
        "IB/RoCE v1" if ethernet => Some(GidType::RoceV1),
        "IB/RoCE v1" => Some(GidType::Ib),
        "RoCE v2" => Some(GidType::RoceV2),
        _ => None,
    }
}
