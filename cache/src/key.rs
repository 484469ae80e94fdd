//! The 128-bit content address of a block.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a [`Key`].
pub const KEY_BYTES: usize = 16;

/// Domain of [`Key::from_digest`]; changing it changes every key made that way.
const DIGEST_CONTEXT: &str = "tranship 2026-11 block key from an engine's digest v1";
/// Domain of [`Key::part`].
const PART_CONTEXT: &str = "tranship 2026-11 part of a block v1";

/// Content address of a block: what its tokens, and all the tokens before it, are.
///
/// Made by a [`Chain`](crate::Chain), or brought by an engine that hashes blocks itself. Keys order
/// and compare as big-endian numbers; a key shows and parses as 32 hex digits, and serialises so in
/// human-readable formats (as bytes elsewhere). In memory it is its bytes and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key with exactly these bytes; they should be a good hash, since nothing else tells two
    /// blocks apart.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key of an engine's own block hash, of any length.
    ///
    /// 16 bytes are taken as they are. Any other length is hashed to 16 bytes by BLAKE3 in
    /// key-derivation mode, so that digests of different lengths never share a key by truncation
    /// and short ones (a 64-bit hash) spread over the whole space.
    pub fn from_digest(digest: &[u8]) -> Self {
        if let Ok(bytes) = digest.try_into() {
            return Self(bytes);
        }
        let wide = blake3::Hasher::new_derive_key(DIGEST_CONTEXT).update(digest).finalize();
        Self::truncate(&wide)
    }

    /// The key under which bytes `range` of this block are kept in memory when the rest of it is not.
    /// `checksum` is that of the whole block, so that the part of one filling is not taken for that of another.
    pub(crate) fn part(self, range: &Range<u64>, checksum: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(PART_CONTEXT);
        for word in [range.start, range.end, checksum] {
            hasher.update(&word.to_le_bytes());
        }
        Self::truncate(&hasher.update(&self.0).finalize())
    }

    /// The first half of a 256-bit hash.
    pub(crate) fn truncate(wide: &blake3::Hash) -> Self {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(&wide.as_bytes()[..KEY_BYTES]);
        Self(bytes)
    }

    /// The bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Both halves as little-endian words, for hashing.
    pub(crate) fn words(self) -> (u64, u64) {
        let both = u128::from_le_bytes(self.0);
        (both as u64, (both >> 64) as u64)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// The text has the wrong length.
    #[error("a key is 32 hex digits, but this has {0} characters")]
    Length(usize),
    /// The text has a character that is no hex digit.
    #[error("a key is 32 hex digits, but character {at} is {found:?}")]
    Digit {
        /// Position of the character, from 0.
        at: usize,
        /// The character.
        found: char,
    },
}

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let alien = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit());
        if let Some((at, found)) = alien {
            return Err(ParseKeyError::Digit { at, found });
        }
        if text.len() != 2 * KEY_BYTES {
            return Err(ParseKeyError::Length(text.len()));
        }
        let value =
            u128::from_str_radix(text, 16).map_err(|_| ParseKeyError::Length(text.len()))?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; KEY_BYTES]>::deserialize(from).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; KEY_BYTES]) {
            let key = Key::from_bytes(bytes);
            prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
            prop_assert_eq!(key.to_string().to_uppercase().parse::<Key>(), Ok(key));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Key>();
        }
    }

    #[test]
    fn digests_of_any_length_become_keys() {
        let long = [7_u8; 32];
        assert_eq!(Key::from_digest(&long[..16]), Key::from_bytes([7; 16]));
        assert_ne!(Key::from_digest(&long), Key::from_digest(&long[..16]));
        assert_ne!(Key::from_digest(&long[..8]), Key::from_digest(&long[..9]));
        assert_eq!(Key::from_digest(&long), Key::from_digest(&long));
    }

    #[test]
    fn errors_point_at_the_fault() {
        assert_eq!("abc".parse::<Key>(), Err(ParseKeyError::Length(3)));
        let bad = "0123456789abcdef0123456789abcdeg";
        assert_eq!(bad.parse::<Key>(), Err(ParseKeyError::Digit { at: 31, found: 'g' }));
        assert_eq!("+".repeat(32).parse::<Key>(), Err(ParseKeyError::Digit { at: 0, found: '+' }));
    }
}
