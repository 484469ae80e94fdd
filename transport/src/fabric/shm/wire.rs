//! What connections say over their socket, one packet of 64 bytes each, little-endian.
//!
//! ```text
//! 0  magic "TSHM"     4  version     6  kind     8  body
//! hello       8 engine (16)  24 windows (4)  32 ring bytes (8)   + control, connection, doorbell
//! welcome     8 engine (16)  24 windows (4)                      + control, doorbell
//! reject      8 reason (1)
//! map         8 token (8)    16 slot (4)  20 generation (4)  24 key (8)  32 to be given away (1)
//! mapping     8 token (8)    16 region (4)  24 length (8)        + the region
//! no mapping  8 token (8)    16 reason (1)
//! forget      8 region (4)
//! bye
//! ```
//! Magic, version and kind keep their places in every version, and so does the body of a reject.

use crate::address::EngineId;
use crate::fabric::RegionId;
use crate::outcome::Reason;
use crate::window::WindowId;

/// The version spoken here.
pub(super) const VERSION: u16 = 1;
/// The length of every packet.
pub(super) const PACKET_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"TSHM";
const BODY_AT: usize = 8;

/// A packet; see the module for the descriptors that come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// The dialler introduces itself.
    Hello { engine: EngineId, windows: u32, ring_bytes: u64 },
    /// The other side does.
    Welcome { engine: EngineId, windows: u32 },
    /// Or it hangs up.
    Reject { reason: Reason },
    /// May I map the region of this window?
    Map { token: u64, window: WindowId, key: u64, whole: bool },
    /// Here it is.
    Mapping { token: u64, region: RegionId, len: u64 },
    /// No.
    NoMapping { token: u64, reason: Reason },
    /// This region is gone: unmap it.
    Forget { region: RegionId },
    /// I hang up; my copies have ended.
    Bye,
}

/// Bytes that are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// Neither magic nor length fit: something else speaks.
    #[error("{0} bytes that are no packet of this protocol")]
    Alien(usize),
    /// Another version.
    #[error("protocol version {0}, this is {VERSION}")]
    Version(u16),
    /// An unknown kind or field.
    #[error("packet kind {kind} is unknown or has a wrong field")]
    Field { kind: u16 },
}

impl Packet {
    /// The bytes of a packet.
    pub(super) fn encode(&self) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &VERSION.to_le_bytes());
        let kind: u16 = match *self {
            Self::Hello { engine, windows, ring_bytes } => {
                put(8, &engine.0.to_le_bytes());
                put(24, &windows.to_le_bytes());
                put(32, &ring_bytes.to_le_bytes());
                1
            }
            Self::Welcome { engine, windows } => {
                put(8, &engine.0.to_le_bytes());
                put(24, &windows.to_le_bytes());
                2
            }
            Self::Reject { reason } => {
                put(8, &[reason as u8]);
                3
            }
            Self::Map { token, window, key, whole } => {
                put(8, &token.to_le_bytes());
                put(16, &window.slot.to_le_bytes());
                put(20, &window.generation.to_le_bytes());
                put(24, &key.to_le_bytes());
                put(32, &[u8::from(whole)]);
                4
            }
            Self::Mapping { token, region, len } => {
                put(8, &token.to_le_bytes());
                put(16, &region.0.to_le_bytes());
                put(24, &len.to_le_bytes());
                5
            }
            Self::NoMapping { token, reason } => {
                put(8, &token.to_le_bytes());
                put(16, &[reason as u8]);
                6
            }
            Self::Forget { region } => {
                put(8, &region.0.to_le_bytes());
                7
            }
            Self::Bye => 8,
        };
        put(6, &kind.to_le_bytes());
        packet
    }

    /// The packet in `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let alien = WireError::Alien(bytes.len());
        if bytes.len() < BODY_AT || bytes[..4] != MAGIC {
            return Err(alien);
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        let kind = u16::from_le_bytes(field(bytes, 6));
        if version != VERSION && kind != 3 {
            return Err(WireError::Version(version));
        }
        if bytes.len() != PACKET_BYTES {
            return Err(alien);
        }
        let wrong = WireError::Field { kind };
        let u32_at = |at| u32::from_le_bytes(field(bytes, at));
        let u64_at = |at| u64::from_le_bytes(field(bytes, at));
        let engine = || EngineId(u128::from_le_bytes(field(bytes, 8)));
        let reason_at = |at: usize| {
            let code = bytes[at];
            Reason::ALL.into_iter().find(|&reason| reason as u8 == code).ok_or(wrong)
        };
        Ok(match kind {
            1 => Self::Hello { engine: engine(), windows: u32_at(24), ring_bytes: u64_at(32) },
            2 => Self::Welcome { engine: engine(), windows: u32_at(24) },
            3 => Self::Reject { reason: reason_at(8)? },
            4 => Self::Map {
                token: u64_at(8),
                window: WindowId { slot: u32_at(16), generation: u32_at(20) },
                key: u64_at(24),
                whole: match bytes[32] {
                    0 => false,
                    1 => true,
                    _ => return Err(wrong),
                },
            },
            5 => Self::Mapping { token: u64_at(8), region: RegionId(u32_at(16)), len: u64_at(24) },
            6 => Self::NoMapping { token: u64_at(8), reason: reason_at(16)? },
            7 => Self::Forget { region: RegionId(u32_at(8)) },
            8 => Self::Bye,
            _ => return Err(wrong),
        })
    }
}

/// `N` bytes at `at`, which the caller has checked to be there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets() -> impl Strategy<Value = Packet> {
        let reason = prop::sample::select(Reason::ALL.to_vec());
        let id = any::<u128>().prop_map(EngineId);
        prop_oneof![
            (id.clone(), any::<u32>(), any::<u64>()).prop_map(|(engine, windows, ring_bytes)| {
                Packet::Hello { engine, windows, ring_bytes }
            }),
            (id, any::<u32>()).prop_map(|(engine, windows)| Packet::Welcome { engine, windows }),
            reason.clone().prop_map(|reason| Packet::Reject { reason }),
            (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
                |(token, slot, generation, key, whole)| Packet::Map {
                    token,
                    window: WindowId { slot, generation },
                    key,
                    whole
                }
            ),
            (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(token, region, len)| {
                Packet::Mapping { token, region: RegionId(region), len }
            }),
            (any::<u64>(), reason).prop_map(|(token, reason)| Packet::NoMapping { token, reason }),
            any::<u32>().prop_map(|region| Packet::Forget { region: RegionId(region) }),
            Just(Packet::Bye),
        ]
    }

    proptest! {
        #[test]
        fn packets_round_trip(packet in packets()) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }

        #[test]
        fn truncated_packets_are_refused(packet in packets(), keep in 0..PACKET_BYTES) {
            prop_assert!(Packet::decode(&packet.encode()[..keep]).is_err());
        }

        #[test]
        fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(!bytes.starts_with(&MAGIC));
            prop_assert!(Packet::decode(&bytes).is_err());
        }

        #[test]
        fn random_bodies_do_no_harm(packet in packets(), body: [u8; 32], kind: u16) {
            let mut bytes = packet.encode();
            bytes[6..8].copy_from_slice(&kind.to_le_bytes());
            bytes[8..40].copy_from_slice(&body);
            let _ = Packet::decode(&bytes);
        }
    }

    #[test]
    fn another_version_is_told_apart() {
        let mut bytes = Packet::Bye.encode();
        bytes[4] = 9;
        assert_eq!(Packet::decode(&bytes), Err(WireError::Version(9)));
        assert_eq!(Packet::decode(&bytes[..20]), Err(WireError::Version(9)));
    }

    #[test]
    fn a_reject_of_any_version_is_understood() {
        let reject = Packet::Reject { reason: Reason::Version };
        let mut bytes = reject.encode();
        bytes[4] = 9;
        assert_eq!(Packet::decode(&bytes), Ok(reject));
    }
}
