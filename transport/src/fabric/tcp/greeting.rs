//! The handshake's messages, and the proof that both sides know the token (`docs/tcp.md`).
//!
//! ```text
//! dialler  → Hello      who, which connection, which stream of it, a nonce
//! acceptor → Challenge  who, a nonce
//! dialler  → Proof      HMAC-SHA256 of both under the token
//! acceptor → Welcome    another HMAC of both; or Reject with a reason, at any point
//! ```
//! The dialler proves itself first: whoever only scans ports learns nothing to try tokens on.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::frame::{Malformed, word};
use crate::address::EngineId;
use crate::outcome::Reason;

/// The version of handshake and frames. Versions differ in anything but the prefix.
pub(super) const VERSION: u16 = 1;
/// What every handshake message starts with, in every version: magic, version, kind, a zero, and
/// the length of the body.
pub(super) const PREFIX_BYTES: usize = 16;
/// The longest body.
pub(super) const BODY_BYTES_MAX: usize = 512;
/// The longest address.
pub(super) const ADDRESS_BYTES_MAX: usize = 262;

const MAGIC: [u8; 8] = *b"TRANSHIP";
const HELLO_BYTES: usize = 78;
const CHALLENGE_BYTES: usize = 56;
const MAC_BYTES: usize = 32;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The first of a connection.
    Latency,
    /// Another one, for payload; they are numbered from 1.
    Bulk(u8),
    /// None at all: asks to drop a connection that broke, and to say so.
    Inquiry,
}

/// The dialler's first word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// Who dials.
    pub engine: EngineId,
    /// The connection, chosen at random.
    pub connection: u128,
    /// A random number.
    pub nonce: [u8; 32],
    /// What the stream is for.
    pub role: Role,
    /// Bulk streams wanted.
    pub streams: u8,
    /// How often the dialler is heard at least.
    pub heartbeat: Duration,
    /// Bytes of messages that the dialler keeps.
    pub credit: u32,
    /// The fabric that stands on the connection; 0 for none.
    pub above: u8,
    /// Where the dialler can be dialled; empty where it cannot.
    pub address: String,
}

/// The acceptor's first word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Who accepts.
    pub engine: EngineId,
    /// A random number.
    pub nonce: [u8; 32],
    /// How often the acceptor is heard at least.
    pub heartbeat: Duration,
    /// Bytes of messages that the acceptor keeps.
    pub credit: u32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Greeting {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Challenge`].
    Challenge(Challenge),
    /// The dialler knows the token.
    Proof([u8; MAC_BYTES]),
    /// The acceptor knows the token and takes the stream; how many bulk streams there are to be.
    Welcome([u8; MAC_BYTES], u8),
    /// The acceptor does not take the stream.
    Reject(Reason),
}

/// Why a greeting cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is none.
    Foreign,
    /// It is one of another version.
    Version,
}

/// The kind and length of the message that starts with this prefix.
///
/// # Errors
/// See [`Misfit`].
pub(super) fn prefix(bytes: &[u8; PREFIX_BYTES]) -> Result<(u8, usize), Misfit> {
    if bytes[..8] != MAGIC {
        return Err(Misfit::Foreign);
    }
    if u16::from_le_bytes(word(bytes, 8)) != VERSION {
        return Err(Misfit::Version);
    }
    let len = u32::from_le_bytes(word(bytes, 12)) as usize;
    if len > BODY_BYTES_MAX {
        return Err(Misfit::Foreign);
    }
    Ok((bytes[10], len))
}

/// Whether `bytes`, fewer than a prefix, can become one.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    let known = bytes.len().min(MAGIC.len());
    bytes[..known] == MAGIC[..known]
}

impl Greeting {
    /// The message, prefix included.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Hello(hello) => (1, hello.encode()),
            Self::Challenge(challenge) => (2, challenge.encode()),
            Self::Proof(mac) => (3, mac.to_vec()),
            Self::Welcome(mac, streams) => {
                let mut body = mac.to_vec();
                body.push(*streams);
                (4, body)
            }
            Self::Reject(reason) => (5, vec![*reason as u8]),
        };
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([kind, 0]);
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// The message of a kind with this body.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a greeting that makes no sense");
        let mac = |body: &[u8]| <[u8; MAC_BYTES]>::try_from(body).map_err(|_| WRONG);
        Ok(match kind {
            1 => Self::Hello(Hello::decode(body).ok_or(WRONG)?),
            2 => Self::Challenge(Challenge::decode(body).ok_or(WRONG)?),
            3 => Self::Proof(mac(body)?),
            4 => {
                let (streams, rest) = body.split_last().ok_or(WRONG)?;
                Self::Welcome(mac(rest)?, *streams)
            }
            5 if body.len() == 1 => {
                Self::Reject(*Reason::ALL.get(usize::from(body[0])).ok_or(WRONG)?)
            }
            _ => return Err(WRONG),
        })
    }
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let (role, index) = match self.role {
            Role::Latency => (0, 0),
            Role::Bulk(index) => (1, index),
            Role::Inquiry => (2, 0),
        };
        let mut body = Vec::with_capacity(HELLO_BYTES + self.address.len());
        body.extend(self.engine.0.to_le_bytes());
        body.extend(self.connection.to_le_bytes());
        body.extend(self.nonce);
        body.extend([role, index, self.streams, self.above]);
        body.extend(millis(self.heartbeat).to_le_bytes());
        body.extend(self.credit.to_le_bytes());
        body.extend((self.address.len() as u16).to_le_bytes());
        body.extend(self.address.as_bytes());
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let address = body.get(HELLO_BYTES..)?;
        let role = match (body[64], body[65]) {
            (0, 0) => Role::Latency,
            (1, index @ 1..) => Role::Bulk(index),
            (2, 0) => Role::Inquiry,
            _ => return None,
        };
        let len = usize::from(u16::from_le_bytes(word(body, 76)));
        if address.len() != len || len > ADDRESS_BYTES_MAX {
            return None;
        }
        Some(Self {
            engine: EngineId(u128::from_le_bytes(word(body, 0))),
            connection: u128::from_le_bytes(word(body, 16)),
            nonce: word(body, 32),
            role,
            streams: body[66],
            above: body[67],
            heartbeat: span(word(body, 68)),
            credit: u32::from_le_bytes(word(body, 72)),
            address: str::from_utf8(address).ok()?.to_owned(),
        })
    }
}

impl Challenge {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(CHALLENGE_BYTES);
        body.extend(self.engine.0.to_le_bytes());
        body.extend(self.nonce);
        body.extend(millis(self.heartbeat).to_le_bytes());
        body.extend(self.credit.to_le_bytes());
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        (body.len() == CHALLENGE_BYTES).then(|| Self {
            engine: EngineId(u128::from_le_bytes(word(body, 0))),
            nonce: word(body, 16),
            heartbeat: span(word(body, 48)),
            credit: u32::from_le_bytes(word(body, 52)),
        })
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

fn span(millis: [u8; 4]) -> Duration {
    Duration::from_millis(u32::from_le_bytes(millis).into())
}

/// Who proves to know the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prover {
    Dialler,
    Acceptor,
}

/// The proof over hello and challenge, as they were on the wire.
pub(super) fn prove(token: &[u8], prover: Prover, hello: &[u8], challenge: &[u8]) -> [u8; 32] {
    mac(token, prover, hello, challenge).finalize().into_bytes().into()
}

/// Whether a proof is right; takes as long whatever is wrong with it.
pub(super) fn is_proven(
    token: &[u8],
    prover: Prover,
    hello: &[u8],
    challenge: &[u8],
    proof: &[u8; 32],
) -> bool {
    mac(token, prover, hello, challenge).verify_slice(proof).is_ok()
}

fn mac(token: &[u8], prover: Prover, hello: &[u8], challenge: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token).expect("any length makes a key");
    mac.update(match prover {
        Prover::Dialler => b"tranship tcp dialler",
        Prover::Acceptor => b"tranship tcp acceptor",
    });
    for part in [hello, challenge] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Greeting {
        let (kind, len) = prefix(&word(bytes, 0)).unwrap();
        assert_eq!(bytes.len(), PREFIX_BYTES + len);
        Greeting::decode(kind, &bytes[PREFIX_BYTES..]).unwrap()
    }

    proptest! {
        #[test]
        fn greetings_survive_the_wire(
            engine: u128, connection: u128, nonce: [u8; 32], index: u8, millis: u32,
            address in "[a-z0-9.:\\[\\]]{0,262}",
        ) {
            let role = match index {
                0 => Role::Latency,
                255 => Role::Inquiry,
                index => Role::Bulk(index),
            };
            let heartbeat = Duration::from_millis(millis.into());
            let engine = EngineId(engine);
            let hello = Hello {
                engine, connection, nonce, role, streams: 4, heartbeat, credit: 9, above: index,
                address,
            };
            let challenge = Challenge { engine, nonce, heartbeat, credit: millis };
            for greeting in [
                Greeting::Hello(hello),
                Greeting::Challenge(challenge),
                Greeting::Proof(nonce),
                Greeting::Welcome(nonce, index),
                Greeting::Reject(Reason::Unauthorised),
            ] {
                prop_assert_eq!(read(&greeting.encode()), greeting);
            }
        }

        #[test]
        fn nonsense_is_refused(kind: u8, body in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(greeting) = Greeting::decode(kind, &body) {
                let bytes = greeting.encode();
                prop_assert_eq!(bytes.len(), PREFIX_BYTES + body.len());
            }
        }
    }

    #[test]
    fn other_versions_and_other_protocols_are_told_apart() {
        let mut bytes: [u8; PREFIX_BYTES] = word(&Greeting::Proof([0; 32]).encode(), 0);
        bytes[8] += 1;
        assert_eq!(prefix(&bytes), Err(Misfit::Version));
        assert_eq!(prefix(b"HTTP/1.1 400 Bad"), Err(Misfit::Foreign));
        assert!(may_begin(b"TRANS") && may_begin(b"") && !may_begin(b"HTT"));
    }

    #[test]
    fn a_proof_is_of_one_token_side_and_conversation() {
        let proof = prove(b"token", Prover::Dialler, b"hello", b"challenge");
        let proven = |token: &[u8], prover, hello: &[u8], challenge: &[u8]| {
            is_proven(token, prover, hello, challenge, &proof)
        };
        assert!(proven(b"token", Prover::Dialler, b"hello", b"challenge"));
        assert!(!proven(b"other", Prover::Dialler, b"hello", b"challenge"));
        assert!(!proven(b"", Prover::Dialler, b"hello", b"challenge"));
        assert!(!proven(b"token", Prover::Acceptor, b"hello", b"challenge"));
        assert!(!proven(b"token", Prover::Dialler, b"helloc", b"hallenge"));
    }
}
