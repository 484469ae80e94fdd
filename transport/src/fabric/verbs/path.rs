//! Which of a port's addresses is used, and what two ports agree on.

use std::fmt;
use std::net::Ipv6Addr;

use tranship_verbs_sys as sys;

/// What a peer must know of a port, or of a queue pair behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// `IBV_LINK_LAYER_…`.
    pub(super) link_layer: u8,
    /// `ibv_mtu`.
    pub(super) mtu: u8,
    pub(super) lid: u16,
    pub(super) gid: [u8; 16],
    /// RoCE version, 0 for InfiniBand.
    pub(super) roce: u8,
}

impl End {
    /// How many bytes it takes on the wire.
    pub(super) const BYTES: usize = 21;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..3].copy_from_slice(&[self.link_layer, self.mtu, self.roce]);
        bytes[3..5].copy_from_slice(&self.lid.to_le_bytes());
        bytes[5..].copy_from_slice(&self.gid);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.first_chunk()?;
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[5..]);
        Some(Self {
            link_layer: bytes[0],
            mtu: bytes[1].clamp(1, 5),
            roce: bytes[2],
            lid: u16::from_le_bytes([bytes[3], bytes[4]]),
            gid,
        })
    }

    /// Whether packets of one can be understood by the other.
    pub(super) fn check(&self, theirs: &Self) -> Result<(), String> {
        if self.is_ethernet() != theirs.is_ethernet() {
            return Err(format!("the peer's port is {theirs}, this one {self}: other networks"));
        }
        if self.roce != theirs.roce {
            return Err(format!(
                "the peer's port is {theirs}, this one {self}: choose GIDs of the same RoCE version \
                 on both sides"
            ));
        }
        Ok(())
    }

    /// Bytes of payload in a packet.
    pub(super) fn mtu_bytes(&self) -> u32 {
        128 << self.mtu
    }

    /// Whether it has no address but the one that every interface makes up for itself, which it need not have
    /// been given: there may be no route.
    pub(super) fn is_of_one_link(&self) -> bool {
        self.is_ethernet() && Ipv6Addr::from(self.gid).is_unicast_link_local()
    }

    pub(super) fn is_ethernet(&self) -> bool {
        i32::from(self.link_layer) == sys::IBV_LINK_LAYER_ETHERNET
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_ethernet() {
            return write!(f, "InfiniBand lid {}", self.lid);
        }
        let address = Ipv6Addr::from(self.gid);
        match address.to_ipv4_mapped() {
            Some(address) => write!(f, "RoCE v{} {address}", self.roce),
            None => write!(f, "RoCE v{} {address}", self.roce),
        }
    }
}

/// An address of a port, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) gid: sys::Gid,
    pub(super) why: &'static str,
}

/// The address of a port that peers reach it at: the one with this index, or the best.
pub(super) fn choose(port: &sys::port::Port, index: Option<u32>) -> Result<Choice, String> {
    let ethernet = i32::from(port.link_layer) == sys::IBV_LINK_LAYER_ETHERNET;
    if let Some(index) = index {
        let found = port.gids.iter().find(|gid| gid.index == index);
        let gid = *found.ok_or_else(|| {
            let there: Vec<_> = port.gids.iter().map(ToString::to_string).collect();
            format!("no GID with index {index}; there are {}", there.join(", "))
        })?;
        return Ok(Choice { gid, why: "it was asked for" });
    }
    if !ethernet {
        let gid = port.gids.first().copied();
        let gid = gid.ok_or("no GID; is a subnet manager (opensm) running?")?;
        return Ok(Choice { gid, why: "InfiniBand goes by lid" });
    }
    port.gids
        .iter()
        .filter_map(|gid| Some((rank(gid)?, *gid)))
        .min_by_key(|((rank, _), gid)| (*rank, gid.index))
        .map(|((_, why), gid)| Choice { gid, why })
        .ok_or_else(|| "no usable GID; give the interface an IP address (ip addr add …)".to_owned())
}

/// How good an address is, the best first, and why.
fn rank(gid: &sys::Gid) -> Option<(u8, &'static str)> {
    let address = Ipv6Addr::from(gid.raw);
    let local = address.is_unicast_link_local();
    match gid.kind {
        sys::GidType::RoceV2 if address.to_ipv4_mapped().is_some() => {
            Some((0, "RoCE v2 over IPv4 is routed everywhere"))
        }
        sys::GidType::RoceV2 if !local => Some((1, "RoCE v2 over IPv6 is routed")),
        sys::GidType::RoceV2 => Some((2, "the only RoCE v2 address is of this link alone")),
        sys::GidType::RoceV1 => {
            Some((3, "there is no RoCE v2 address; v1 does not leave its link"))
        }
        sys::GidType::Ib => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(gids: &[(u32, sys::GidType, &str)]) -> sys::port::Port {
        let gids = gids
            .iter()
            .map(|(index, kind, address)| sys::Gid {
                index: *index,
                kind: *kind,
                raw: address.parse::<Ipv6Addr>().unwrap().octets(),
            })
            .collect();
        sys::port::Port {
            number: 1,
            state: sys::IBV_PORT_ACTIVE,
            link_layer: sys::IBV_LINK_LAYER_ETHERNET as u8,
            mbps: 100_000,
            mtu_bytes: 4096,
            lid: 0,
            gids,
        }
    }

    /// GID 0 is, on most hosts, the one that does not work.
    #[test]
    fn the_address_that_is_routed_is_chosen() {
        use sys::GidType::{RoceV1, RoceV2};
        let all = [
            (0, RoceV1, "fe80::1"),
            (1, RoceV2, "fe80::1"),
            (2, RoceV1, "::ffff:10.0.0.1"),
            (3, RoceV2, "::ffff:10.0.0.1"),
            (4, RoceV2, "fd00::1"),
        ];
        let chosen = |gids: &[_]| choose(&port(gids), None).map(|it| it.gid.index);
        assert_eq!(chosen(&all), Ok(3));
        assert_eq!(chosen(&[all[0], all[1], all[4]]), Ok(4));
        assert_eq!(chosen(&all[..2]), Ok(1));
        assert_eq!(chosen(&all[..1]), Ok(0));
        assert!(chosen(&[]).unwrap_err().contains("ip addr add"));
        assert_eq!(choose(&port(&all), Some(1)).unwrap().gid.index, 1);
        assert!(choose(&port(&all), Some(9)).unwrap_err().contains("index 9"));
    }

    #[test]
    fn ends_survive_the_wire_and_say_what_does_not_fit() {
        let end = End { link_layer: 2, mtu: 5, lid: 7, gid: [9; 16], roce: 2 };
        assert_eq!(End::decode(&end.encode()), Some(end));
        assert_eq!(End::decode(&[0; 5]), None);
        assert!(end.check(&End { roce: 1, ..end }).unwrap_err().contains("RoCE v1"));
        let infiniband = End { link_layer: 1, roce: 0, ..end };
        assert!(end.check(&infiniband).unwrap_err().contains("InfiniBand lid 7"));
    }
}
