//! The frames of a connection that is up: what they look like on the wire (`docs/tcp.md`).
//!
//! Every frame is a head of [`HEAD_BYTES`], then a body whose length the head tells (layouts and
//! acknowledgements), then a payload. Decoding is a pure function of bytes that anybody may have
//! sent: it refuses what makes no sense and trusts no length beyond its limit.

use crate::immediate::Immediate;
use crate::outcome::Reason;
use crate::window::WindowId;

/// The length of every head.
pub(super) const HEAD_BYTES: usize = 64;
/// The longest payload of one frame.
pub(super) const CHUNK_BYTES_MAX: u32 = 1 << 20;
/// The longest message.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The longest aside.
pub(super) const ASIDE_BYTES_MAX: usize = 16 << 10;
/// The longest layout.
pub(super) const LAYOUT_BYTES_MAX: usize = 16 << 10;
/// The most acknowledgements of one frame.
pub(super) const ACKS_MAX: usize = 256;
/// The length of one acknowledgement.
pub(super) const ACK_BYTES: usize = 16;

const IMMEDIATE: u8 = 1;
const URGENT: u8 = 2;

/// Bytes that are no frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Which bytes of the receiver's memory an operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The window.
    pub window: WindowId,
    /// What opens it.
    pub key: u64,
    /// Where the operation starts in the window, bytes.
    pub offset: u64,
    /// Bytes to skip from there, or of the layout.
    pub skip: u64,
    /// How long the layout that follows is; 0 where there is none.
    pub layout: u32,
}

/// One frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// Bytes of a write.
    Write {
        /// The operation, as the sender numbers it.
        tag: u64,
        /// Where to.
        place: Place,
        /// Bytes of the whole operation.
        total: u64,
        /// Bytes of this frame.
        payload: u32,
        /// What to deliver after the last byte of the operation.
        immediate: Option<Immediate>,
    },
    /// Asks for bytes.
    Read {
        /// The operation, as the sender numbers it.
        tag: u64,
        /// Where from.
        place: Place,
        /// How many bytes.
        len: u64,
        /// Which byte of the operation the first of them is.
        base: u64,
        /// Whether the answer belongs into the latency stream.
        urgent: bool,
    },
    /// Bytes of an answer to a read.
    Data {
        /// The operation of the receiver.
        tag: u64,
        /// Which byte of the operation the first is.
        at: u64,
        /// Bytes of this frame.
        payload: u32,
    },
    /// A message.
    Message {
        /// Its length.
        payload: u32,
        /// What to deliver after it.
        immediate: Option<Immediate>,
    },
    /// An immediate alone.
    Signal {
        /// It.
        immediate: Immediate,
        /// Whether it is of the latency lane.
        urgent: bool,
    },
    /// How operations of the receiver ended; as many [`Ack`]s follow.
    Acks {
        /// How many.
        count: u32,
    },
    /// No more frames of a write follow than make up `sent` bytes.
    Abort {
        /// The write.
        tag: u64,
        /// Bytes that were sent, or are on their way.
        sent: u64,
    },
    /// Undoes an abort that came after the end.
    Forget {
        /// The write.
        tag: u64,
    },
    /// The answer to a read is not wanted any more.
    Stop {
        /// The read.
        tag: u64,
    },
    /// So many more bytes of messages may be sent.
    Credit {
        /// How many.
        bytes: u64,
    },
    /// Still there.
    Ping,
    /// The sender has hung up: it lands nothing more and sends nothing more.
    Bye,
    /// A word from the fabric that stands on this connection to its like.
    Aside {
        /// Its length.
        payload: u32,
    },
}

/// The bytes of `body` from `at` on.
pub(super) fn word<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&body[at..at + N]);
    word
}

impl Frame {
    /// The bytes that follow the head: body and payload.
    #[must_use]
    pub(super) fn follows(&self) -> (u32, u32) {
        match *self {
            Self::Write { place, payload, .. } => (place.layout, payload),
            Self::Read { place, .. } => (place.layout, 0),
            Self::Data { payload, .. }
            | Self::Message { payload, .. }
            | Self::Aside { payload } => (0, payload),
            Self::Acks { count } => (count * ACK_BYTES as u32, 0),
            _ => (0, 0),
        }
    }

    /// Whether it is of the latency lane, if it came in the latency stream: what is said about bulk
    /// is there as well, and messages.
    #[must_use]
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Data { .. } => true,
            Self::Read { urgent, .. } | Self::Signal { urgent, .. } => *urgent,
            _ => false,
        }
    }

    /// Its head.
    #[must_use]
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        let (body, payload) = self.follows();
        put(4, &body.to_le_bytes());
        put(8, &payload.to_le_bytes());
        let mut flags = 0;
        let mut with = |immediate: &Option<Immediate>| {
            if let Some(Immediate(word)) = immediate {
                flags |= IMMEDIATE;
                return word.to_le_bytes();
            }
            [0; 4]
        };
        let kind: u8 = match self {
            Self::Write { tag, place, total, immediate, .. } => {
                put(12, &with(immediate));
                put(16, &tag.to_le_bytes());
                put(24, &total.to_le_bytes());
                put(32, &place.encode());
                1
            }
            Self::Read { tag, place, len, base, urgent } => {
                put(8, &base.to_le_bytes());
                put(16, &tag.to_le_bytes());
                put(24, &len.to_le_bytes());
                put(32, &place.encode());
                flags |= if *urgent { URGENT } else { 0 };
                2
            }
            Self::Data { tag, at, .. } => {
                put(16, &tag.to_le_bytes());
                put(24, &at.to_le_bytes());
                3
            }
            Self::Message { immediate, .. } => {
                put(12, &with(immediate));
                4
            }
            Self::Signal { immediate, urgent } => {
                put(12, &with(&Some(*immediate)));
                flags |= if *urgent { URGENT } else { 0 };
                5
            }
            Self::Acks { .. } => 6,
            Self::Abort { tag, sent } => {
                put(16, &tag.to_le_bytes());
                put(24, &sent.to_le_bytes());
                7
            }
            Self::Forget { tag } => {
                put(16, &tag.to_le_bytes());
                8
            }
            Self::Stop { tag } => {
                put(16, &tag.to_le_bytes());
                9
            }
            Self::Credit { bytes } => {
                put(24, &bytes.to_le_bytes());
                10
            }
            Self::Ping => 11,
            Self::Bye => 12,
            Self::Aside { .. } => 13,
        };
        head[0] = kind;
        head[1] = flags;
        head
    }

    /// The frame whose head this is.
    ///
    /// # Errors
    /// When it is none, or longer than frames are.
    pub(super) fn decode(head: &[u8; HEAD_BYTES]) -> Result<Self, Malformed> {
        let short = |at: usize| u32::from_le_bytes(word(head, at));
        let long = |at: usize| u64::from_le_bytes(word(head, at));
        let flags = head[1];
        let urgent = flags & URGENT != 0;
        let immediate = (flags & IMMEDIATE != 0).then(|| Immediate(short(12)));
        let (body, payload, tag) = (short(4), short(8), long(16));
        let place = || Place::decode(head, body);
        let chunk = |payload: u32| match payload {
            0..=CHUNK_BYTES_MAX => Ok(payload),
            _ => Err(Malformed("a frame longer than frames are")),
        };
        let frame = match head[0] {
            1 => {
                let (total, payload) = (long(24), chunk(payload)?);
                if u64::from(payload) > total || (payload == 0 && total != 0) {
                    return Err(Malformed("a write whose lengths do not fit"));
                }
                Self::Write { tag, place: place()?, total, payload, immediate }
            }
            2 => {
                let (len, base) = (long(24), long(8));
                if base.checked_add(len).is_none() {
                    return Err(Malformed("a read that ends beyond 64 bits"));
                }
                Self::Read { tag, place: place()?, len, base, urgent }
            }
            3 => Self::Data { tag, at: long(24), payload: chunk(payload)? },
            4 if payload as usize <= MESSAGE_BYTES_MAX => Self::Message { payload, immediate },
            4 => return Err(Malformed("a message longer than messages are")),
            5 => Self::Signal {
                immediate: immediate.ok_or(Malformed("a signal without an immediate"))?,
                urgent,
            },
            6 => {
                let count = body / ACK_BYTES as u32;
                if count as usize > ACKS_MAX || count == 0 {
                    return Err(Malformed("more acknowledgements than a frame holds, or none"));
                }
                Self::Acks { count }
            }
            7 => Self::Abort { tag, sent: long(24) },
            8 => Self::Forget { tag },
            9 => Self::Stop { tag },
            10 => Self::Credit { bytes: long(24) },
            11 => Self::Ping,
            12 => Self::Bye,
            13 if payload as usize <= ASIDE_BYTES_MAX => Self::Aside { payload },
            13 => return Err(Malformed("an aside longer than asides are")),
            _ => return Err(Malformed("a frame of an unknown kind")),
        };
        let payload = if let Self::Read { .. } = frame { 0 } else { payload };
        if frame.follows() != (body, payload) {
            return Err(Malformed("a frame whose lengths do not fit its kind"));
        }
        Ok(frame)
    }
}

impl Place {
    fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.window.slot.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.window.generation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..].copy_from_slice(&self.skip.to_le_bytes());
        bytes
    }

    fn decode(head: &[u8; HEAD_BYTES], layout: u32) -> Result<Self, Malformed> {
        let short = |at: usize| u32::from_le_bytes(word(head, at));
        let long = |at: usize| u64::from_le_bytes(word(head, at));
        if layout as usize > LAYOUT_BYTES_MAX {
            return Err(Malformed("a layout longer than layouts are"));
        }
        let window = WindowId { slot: short(32), generation: short(36) };
        Ok(Self { window, key: long(40), offset: long(48), skip: long(56), layout })
    }
}

/// How an operation of the receiver of this ended, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    /// The operation, as the receiver numbered it.
    pub tag: u64,
    /// How.
    pub verdict: Verdict,
}

/// The end of an operation as its executor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Well.
    Done,
    /// Refused before any byte moved.
    Refused(Reason),
    /// Stopped after some bytes may have moved.
    Stopped(Reason),
    /// Will be refused; send no more of it, and say how much was sent.
    Refusing(Reason),
    /// Ended because of an abort; whether bytes had moved.
    Aborted {
        /// Whether they had.
        moved: bool,
    },
}

impl Ack {
    /// Its bytes.
    #[must_use]
    pub(super) fn encode(&self) -> [u8; ACK_BYTES] {
        let (code, detail) = match self.verdict {
            Verdict::Done => (0, 0),
            Verdict::Refused(reason) => (1, reason as u8),
            Verdict::Stopped(reason) => (2, reason as u8),
            Verdict::Refusing(reason) => (3, reason as u8),
            Verdict::Aborted { moved } => (4, u8::from(moved)),
        };
        let mut bytes = [0; ACK_BYTES];
        bytes[..8].copy_from_slice(&self.tag.to_le_bytes());
        (bytes[8], bytes[9]) = (code, detail);
        bytes
    }

    /// The acknowledgement with these bytes.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn decode(bytes: &[u8; ACK_BYTES]) -> Result<Self, Malformed> {
        let reason = || {
            let reason = Reason::ALL.get(usize::from(bytes[9]));
            reason.copied().ok_or(Malformed("an unknown reason"))
        };
        let verdict = match bytes[8] {
            0 => Verdict::Done,
            1 => Verdict::Refused(reason()?),
            2 => Verdict::Stopped(reason()?),
            3 => Verdict::Refusing(reason()?),
            4 => Verdict::Aborted { moved: bytes[9] != 0 },
            _ => return Err(Malformed("an unknown acknowledgement")),
        };
        Ok(Self { tag: u64::from_le_bytes(word(bytes, 0)), verdict })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let place = (any::<(u32, u32, u64, u64, u64)>(), 0..=LAYOUT_BYTES_MAX as u32).prop_map(
            |((slot, generation, key, offset, skip), layout)| Place {
                window: WindowId { slot, generation },
                key,
                offset,
                skip,
                layout,
            },
        );
        let immediate = any::<Option<u32>>().prop_map(|it| it.map(Immediate));
        let chunk = 0..=CHUNK_BYTES_MAX;
        prop_oneof![
            (any::<u64>(), place.clone(), any::<u32>(), 1..=CHUNK_BYTES_MAX, immediate.clone())
                .prop_map(|(tag, place, more, payload, immediate)| Frame::Write {
                    tag,
                    place,
                    total: u64::from(payload) + u64::from(more),
                    payload,
                    immediate
                }),
            (any::<u64>(), place, any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
                |(tag, place, len, base, urgent)| Frame::Read {
                    tag,
                    place,
                    len: len.into(),
                    base: base.into(),
                    urgent
                }
            ),
            (any::<u64>(), any::<u64>(), chunk).prop_map(|(tag, at, payload)| Frame::Data {
                tag,
                at,
                payload
            }),
            (0..=MESSAGE_BYTES_MAX as u32, immediate)
                .prop_map(|(payload, immediate)| Frame::Message { payload, immediate }),
            any::<(u32, bool)>()
                .prop_map(|(it, urgent)| Frame::Signal { immediate: Immediate(it), urgent }),
            (1..=ACKS_MAX as u32).prop_map(|count| Frame::Acks { count }),
            any::<(u64, u64)>().prop_map(|(tag, sent)| Frame::Abort { tag, sent }),
            any::<u64>().prop_map(|tag| Frame::Forget { tag }),
            any::<u64>().prop_map(|tag| Frame::Stop { tag }),
            any::<u64>().prop_map(|bytes| Frame::Credit { bytes }),
            Just(Frame::Ping),
            Just(Frame::Bye),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_survives_the_wire(frame in frames()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn what_is_decoded_is_within_limits(kind in 0..16u8, rest: [u8; 32], more: [u8; 31]) {
            let mut head = [0; HEAD_BYTES];
            head[0] = kind;
            head[1..33].copy_from_slice(&rest);
            head[33..].copy_from_slice(&more);
            if let Ok(frame) = Frame::decode(&head) {
                let (body, payload) = frame.follows();
                prop_assert!(body as usize <= LAYOUT_BYTES_MAX && payload <= CHUNK_BYTES_MAX);
            }
        }

        #[test]
        fn an_ack_survives_the_wire(tag: u64, code in 0..8u8, detail: u8) {
            let mut bytes = [0; ACK_BYTES];
            bytes[..8].copy_from_slice(&tag.to_le_bytes());
            (bytes[8], bytes[9]) = (code, detail);
            if let Ok(ack) = Ack::decode(&bytes) {
                prop_assert_eq!(Ack::decode(&ack.encode()), Ok(ack));
            } else {
                prop_assert!(code > 4 || usize::from(detail) >= Reason::ALL.len());
            }
        }
    }
}
