//! What a port is and can do.

use std::fmt;
use std::io;
use std::mem;

use super::devices::Context;
use super::{
    Gid, IBV_LINK_LAYER_ETHERNET, IBV_LINK_LAYER_INFINIBAND, IBV_LINK_LAYER_UNSPECIFIED,
    IBV_PORT_ACTIVE, IBV_PORT_ACTIVE_DEFER, IBV_PORT_ARMED, IBV_PORT_DOWN, IBV_PORT_INIT,
    ibv_device_attr, ibv_port_attr,
};

/// A port, as it was when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// `ibv_port_state`.
    pub state: u32,
    /// `IBV_LINK_LAYER_…`.
    pub link_layer: u8,
    /// 10⁶ bits a second, of all lanes.
    pub mbps: u64,
    /// Bytes of payload in a packet.
    pub mtu_bytes: u32,
    /// Its address on InfiniBand.
    pub lid: u16,
    /// Entries of its table that are in use.
    pub gids: Vec<Gid>,
}

impl Context<'_> {
    /// `ibv_query_device`.
    ///
    /// # Errors
    /// What the device says.
    pub fn attributes(&self) -> io::Result<ibv_device_attr> {
        // SAFETY: the device is open; the structure is numbers, which may be zero, and is filled in.
        unsafe {
            let mut attributes: ibv_device_attr = mem::zeroed();
            match self.verbs().ibv_query_device(self.as_ptr(), &raw mut attributes) {
                0 => Ok(attributes),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// A port, with its addresses.
    ///
    /// # Errors
    /// What the device says.
    pub fn port(&self, number: u8) -> io::Result<Port> {
        // SAFETY: the device is open; the structure is numbers, which may be zero, and is filled in.
        let attributes = unsafe {
            let mut attributes: ibv_port_attr = mem::zeroed();
            match self.verbs().query_port(self.as_ptr(), number, &raw mut attributes) {
                0 => attributes,
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        };
        let mut gids = Vec::new();
        for index in 0..u32::try_from(attributes.gid_tbl_len).unwrap_or(0) {
            // SAFETY: the device is open.
            gids.extend(unsafe { self.verbs().query_gid(self.as_ptr(), number, index) }?);
        }
        Ok(Port {
            number,
            state: attributes.state,
            link_layer: attributes.link_layer,
            mbps: mbps(attributes.active_width, attributes.active_speed),
            mtu_bytes: mtu_bytes(attributes.active_mtu),
            lid: attributes.lid,
            gids,
        })
    }
}

impl Port {
    /// Whether packets go through it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == IBV_PORT_ACTIVE
    }

    /// Its state, in words.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            IBV_PORT_DOWN => "down",
            IBV_PORT_INIT => "waiting for a subnet manager",
            IBV_PORT_ARMED => "armed",
            IBV_PORT_ACTIVE => "active",
            IBV_PORT_ACTIVE_DEFER => "active, deferred",
            _ => "in no known state",
        }
    }

    /// What to do about a port that is not active.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self.state {
            IBV_PORT_ACTIVE => None,
            IBV_PORT_INIT => Some("start a subnet manager (opensm) in this network"),
            _ => Some("plug in the cable, and bring the interface up (ip link set dev NAME up)"),
        }
    }

    /// The link below it, in words.
    #[must_use]
    pub fn link_name(&self) -> &'static str {
        match i32::from(self.link_layer) {
            // Drivers from before there was another say nothing.
            IBV_LINK_LAYER_UNSPECIFIED | IBV_LINK_LAYER_INFINIBAND => "InfiniBand",
            IBV_LINK_LAYER_ETHERNET => "Ethernet",
            _ => "unknown link",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, mbps, mtu_bytes, .. } = self;
        let gbps = *mbps as f64 / 1e3;
        write!(f, "port {number} {}, {gbps} Gbit/s, MTU {mtu_bytes}", self.link_name())
    }
}

/// Bytes of an `ibv_mtu`.
pub(crate) const fn mtu_bytes(mtu: u32) -> u32 {
    match mtu {
        1..=5 => 128 << mtu,
        _ => 0,
    }
}

/// Lanes times what one does, by the codes of the InfiniBand specification.
pub(crate) const fn mbps(width: u8, speed: u8) -> u64 {
    let lanes = match width {
        1 => 1,
        2 => 4,
        4 => 8,
        8 => 12,
        16 => 2,
        _ => 0,
    };
    let lane = match speed {
        1 => 2_500,
        2 => 5_000,
        4 | 8 => 10_000,
        16 => 14_000,
        32 => 25_000,
        64 => 50_000,
        128 => 100_000,
        _ => 0,
    };
    lanes * lane
}
