//! Canonical bytes of an identity.
//!
//! ```text
//! u8   version (1)
//! six strings (model, revision, dtype, layout, salt, tenant), each: u16 bytes, UTF-8
//! u32  layers, kv_heads, head_dim, tp_size, tp_rank, pp_size, pp_rank, block_tokens
//! ```
//! Integers are little-endian. One identity has exactly one encoding.

use super::{Geometry, Identity};
use crate::limits::{IDENTITY_BYTES_MAX, IDENTITY_STRING_BYTES_MAX};

/// Version of the encoding.
const VERSION: u8 = 1;

/// Why bytes or fields are no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The encoding is of another version.
    #[error("identity encoding is version {0}, this build reads version 1; use matching versions")]
    Version(u8),
    /// The bytes end inside a field.
    #[error("identity is cut short in {field}: {need} more bytes needed, {have} left")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Bytes the field needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// Bytes follow the last field.
    #[error("identity is followed by {0} bytes that belong to nothing")]
    Trailing(usize),
    /// A string exceeds the limit.
    #[error(
        "{field} of the identity has {len} bytes, at most {IDENTITY_STRING_BYTES_MAX} are allowed"
    )]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A string that must say something is empty.
    #[error("{0} of the identity is empty; name it")]
    Empty(&'static str),
    /// A string is not UTF-8.
    #[error("{0} of the identity is not UTF-8")]
    NotUtf8(&'static str),
    /// A count that must be at least one is zero.
    #[error("{0} of the identity is 0, it is at least 1")]
    Zero(&'static str),
    /// A rank lies outside its group.
    #[error("{field} of the identity is {rank}, but the group has {size}")]
    Rank {
        /// The rank's field.
        field: &'static str,
        /// Its value.
        rank: u32,
        /// Size of the group.
        size: u32,
    },
}

impl Identity {
    /// Checks lengths, counts and ranks.
    ///
    /// # Errors
    /// The first field that breaks a limit.
    pub fn validate(&self) -> Result<(), IdentityError> {
        for (field, text) in self.strings() {
            if text.len() > IDENTITY_STRING_BYTES_MAX {
                return Err(IdentityError::TooLong { field, len: text.len() });
            }
            if text.is_empty() && matches!(field, "model" | "dtype" | "tenant") {
                return Err(IdentityError::Empty(field));
            }
        }
        let g = &self.geometry;
        for (field, rank, size) in
            [("tp_rank", g.tp_rank, g.tp_size), ("pp_rank", g.pp_rank, g.pp_size)]
        {
            if size > 0 && rank >= size {
                return Err(IdentityError::Rank { field, rank, size });
            }
        }
        for (field, value) in self.numbers() {
            if value == 0 && !field.ends_with("rank") {
                return Err(IdentityError::Zero(field));
            }
        }
        Ok(())
    }

    /// The canonical encoding, at most
    /// [`IDENTITY_BYTES_MAX`] long.
    ///
    /// # Errors
    /// When [`validate`](Self::validate) fails.
    pub fn encode(&self) -> Result<Vec<u8>, IdentityError> {
        self.validate()?;
        Ok(self.canonical())
    }

    /// Reads a canonical encoding, all of `bytes`.
    ///
    /// # Errors
    /// Says which field is cut, too long, no text or out of range; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut from = Reader { bytes };
        let version = from.take("version", 1)?[0];
        if version != VERSION {
            return Err(IdentityError::Version(version));
        }
        let identity = Self {
            model: from.text("model")?,
            revision: from.text("revision")?,
            dtype: from.text("dtype")?,
            layout: from.text("layout")?,
            salt: from.text("salt")?,
            tenant: from.text("tenant")?,
            geometry: Geometry {
                layers: from.number("layers")?,
                kv_heads: from.number("kv_heads")?,
                head_dim: from.number("head_dim")?,
                tp_size: from.number("tp_size")?,
                tp_rank: from.number("tp_rank")?,
                pp_size: from.number("pp_size")?,
                pp_rank: from.number("pp_rank")?,
            },
            block_tokens: from.number("block_tokens")?,
        };
        if !from.bytes.is_empty() {
            return Err(IdentityError::Trailing(from.bytes.len()));
        }
        identity.validate()?;
        Ok(identity)
    }

    /// The encoding, also of an identity that breaks a limit: lengths are then written in full
    /// 64 bits behind an escape, so that hashing stays injective.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(IDENTITY_BYTES_MAX.min(256));
        to.push(VERSION);
        for (_, text) in self.strings() {
            match u16::try_from(text.len()) {
                Ok(len) if len < u16::MAX => to.extend(len.to_le_bytes()),
                _ => {
                    to.extend(u16::MAX.to_le_bytes());
                    to.extend((text.len() as u64).to_le_bytes());
                }
            }
            to.extend(text.as_bytes());
        }
        for (_, value) in self.numbers() {
            to.extend(value.to_le_bytes());
        }
        to
    }

    fn strings(&self) -> [(&'static str, &str); 6] {
        [
            ("model", &self.model),
            ("revision", &self.revision),
            ("dtype", &self.dtype),
            ("layout", &self.layout),
            ("salt", &self.salt),
            ("tenant", &self.tenant),
        ]
    }

    fn numbers(&self) -> [(&'static str, u32); 8] {
        let g = &self.geometry;
        [
            ("layers", g.layers),
            ("kv_heads", g.kv_heads),
            ("head_dim", g.head_dim),
            ("tp_size", g.tp_size),
            ("tp_rank", g.tp_rank),
            ("pp_size", g.pp_size),
            ("pp_rank", g.pp_rank),
            ("block_tokens", self.block_tokens),
        ]
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, need: usize) -> Result<&'a [u8], IdentityError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(need) else {
            return Err(IdentityError::Truncated { field, need, have: self.bytes.len() });
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn text(&mut self, field: &'static str) -> Result<String, IdentityError> {
        let len = self.take(field, 2)?;
        let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
        if len > IDENTITY_STRING_BYTES_MAX {
            return Err(IdentityError::TooLong { field, len });
        }
        let text = std::str::from_utf8(self.take(field, len)?);
        text.map(str::to_owned).map_err(|_| IdentityError::NotUtf8(field))
    }

    fn number(&mut self, field: &'static str) -> Result<u32, IdentityError> {
        let b = self.take(field, 4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identities() -> impl Strategy<Value = Identity> {
        let text = || "[a-zA-Zé/._-]{1,40}";
        let count = || 1_u32..1000;
        (
            (text(), "[a-z0-9]{0,40}", text(), "[a-z]{0,8}", ".{0,40}", text()),
            (count(), count(), count(), count(), count(), count()),
        )
            .prop_map(|((model, revision, dtype, layout, salt, tenant), n)| Identity {
                model,
                revision,
                dtype,
                layout,
                salt,
                tenant,
                geometry: Geometry {
                    layers: n.0,
                    kv_heads: n.1,
                    head_dim: n.2,
                    tp_size: n.3,
                    tp_rank: n.3 - 1,
                    pp_size: n.4,
                    pp_rank: 0,
                },
                block_tokens: n.5,
            })
    }

    proptest! {
        #[test]
        fn bytes_and_back(identity in identities()) {
            let bytes = identity.encode().unwrap();
            prop_assert!(bytes.len() <= IDENTITY_BYTES_MAX);
            prop_assert_eq!(Identity::decode(&bytes), Ok(identity));
        }

        #[test]
        fn a_cut_is_told_and_a_tail_is_told(identity in identities(), at: prop::sample::Index) {
            let mut bytes = identity.encode().unwrap();
            let cut = Identity::decode(&bytes[..at.index(bytes.len())]);
            prop_assert!(matches!(cut, Err(IdentityError::Truncated { .. })), "{cut:?}");
            bytes.push(0);
            prop_assert_eq!(Identity::decode(&bytes), Err(IdentityError::Trailing(1)));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>, versioned: bool) {
            if versioned && let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(identity) = Identity::decode(&bytes) {
                prop_assert_eq!(identity.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn different_identities_have_different_ids(a in identities(), b in identities()) {
            prop_assert_eq!(a == b, a.id() == b.id());
            prop_assert_eq!(a == b, a.explain_mismatch(&b).is_empty());
        }
    }

    #[test]
    fn limits_are_enforced_both_ways() {
        let mut id = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        id.geometry.tp_rank = 1;
        let outside = IdentityError::Rank { field: "tp_rank", rank: 1, size: 1 };
        assert_eq!(id.encode(), Err(outside.clone()));
        assert_eq!(Identity::decode(&id.canonical()), Err(outside));
        id.geometry = Geometry { layers: 0, ..Geometry::default() };
        assert_eq!(id.encode(), Err(IdentityError::Zero("layers")));
        id.geometry = Geometry::default();
        id.model = "x".repeat(513);
        assert_eq!(id.encode(), Err(IdentityError::TooLong { field: "model", len: 513 }));
        id.model.clear();
        assert_eq!(id.encode(), Err(IdentityError::Empty("model")));
    }
}
