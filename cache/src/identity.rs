//! What makes two KV caches interchangeable.

mod codec;

use std::fmt;

use crate::key::{Key, ParseKeyError};

pub use codec::IdentityError;

/// Domain of [`IdentityId`].
const ID_CONTEXT: &str = "tranship 2026-11 kv identity v1";

/// How the KV of one block is shaped and which shard of the model it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Layers held by this shard.
    pub layers: u32,
    /// KV heads held by this shard (1 for latent attention).
    pub kv_heads: u32,
    /// Elements of one head of one token (the latent width for latent attention).
    pub head_dim: u32,
    /// Tensor-parallel shards.
    pub tp_size: u32,
    /// Which tensor-parallel shard this is, from 0.
    pub tp_rank: u32,
    /// Pipeline stages.
    pub pp_size: u32,
    /// Which pipeline stage this is, from 0.
    pub pp_rank: u32,
}

impl Default for Geometry {
    /// One layer, one head of one element, unsharded.
    fn default() -> Self {
        Self { layers: 1, kv_heads: 1, head_dim: 1, tp_size: 1, tp_rank: 0, pp_size: 1, pp_rank: 0 }
    }
}

/// Everything that must agree before the bytes of one KV cache may stand in for those of another.
///
/// Strings are compared byte by byte and are at most
/// [`IDENTITY_STRING_BYTES_MAX`](crate::limits::IDENTITY_STRING_BYTES_MAX) long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Model name.
    pub model: String,
    /// Revision of the weights, as exact as the engine knows it.
    pub revision: String,
    /// Element type of the KV, with its scaling scheme if it is quantised (`bf16`, `fp8_e4m3`, …).
    pub dtype: String,
    /// Order of the dimensions inside a block, in the engine's own words (`nhd`, `hnd`, `mla`, …).
    pub layout: String,
    /// Shape and shard.
    pub geometry: Geometry,
    /// Tokens in a full block.
    pub block_tokens: u32,
    /// Secret or label that keeps caches apart on purpose; empty for none.
    pub salt: String,
    /// Who owns the blocks.
    pub tenant: String,
}

impl Identity {
    /// Layout of [`Identity::new`].
    pub const LAYOUT_DEFAULT: &'static str = "nhd";
    /// Tenant of [`Identity::new`].
    pub const TENANT_DEFAULT: &'static str = "default";

    /// An identity of the default tenant, without salt; the other fields are public.
    pub fn new(
        model: impl Into<String>,
        revision: impl Into<String>,
        dtype: impl Into<String>,
        geometry: Geometry,
        block_tokens: u32,
    ) -> Self {
        Self {
            model: model.into(),
            revision: revision.into(),
            dtype: dtype.into(),
            layout: Self::LAYOUT_DEFAULT.into(),
            geometry,
            block_tokens,
            salt: String::new(),
            tenant: Self::TENANT_DEFAULT.into(),
        }
    }

    /// The 128-bit name of this identity: BLAKE3 of its canonical encoding.
    pub fn id(&self) -> IdentityId {
        let wide = blake3::Hasher::new_derive_key(ID_CONTEXT).update(&self.canonical()).finalize();
        IdentityId(Key::truncate(&wide))
    }

    /// Says in which fields `self` and `other` differ; empty when they agree.
    ///
    /// The salt may be a secret, so only the fact that it differs is told.
    pub fn explain_mismatch(&self, other: &Self) -> String {
        let texts = [
            ("model", &self.model, &other.model),
            ("revision", &self.revision, &other.revision),
            ("dtype", &self.dtype, &other.dtype),
            ("layout", &self.layout, &other.layout),
            ("tenant", &self.tenant, &other.tenant),
        ];
        let (a, b) = (&self.geometry, &other.geometry);
        let numbers = [
            ("layers", a.layers, b.layers),
            ("kv_heads", a.kv_heads, b.kv_heads),
            ("head_dim", a.head_dim, b.head_dim),
            ("tp_size", a.tp_size, b.tp_size),
            ("tp_rank", a.tp_rank, b.tp_rank),
            ("pp_size", a.pp_size, b.pp_size),
            ("pp_rank", a.pp_rank, b.pp_rank),
            ("block_tokens", self.block_tokens, other.block_tokens),
        ];
        let texts = texts.iter().filter(|(_, ours, theirs)| ours != theirs);
        let numbers = numbers.iter().filter(|(_, ours, theirs)| ours != theirs);
        let salt = (self.salt != other.salt).then(|| "salt differs".to_owned());
        texts
            .map(|(field, ours, theirs)| format!("{field}: {ours:?} here, {theirs:?} there"))
            .chain(
                numbers
                    .map(|(field, ours, theirs)| format!("{field}: {ours} here, {theirs} there")),
            )
            .chain(salt)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// 128-bit name of an [`Identity`], equal exactly when every field is.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct IdentityId(Key);

impl IdentityId {
    /// The id with these bytes, as read from a message.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Key::from_bytes(bytes))
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityId({self})")
    }
}

impl std::str::FromStr for IdentityId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_its_fields_and_keeps_the_salt() {
        let ours = Identity::new("llama", "r1", "bf16", Geometry::default(), 16);
        let mut theirs = ours.clone();
        assert_eq!(ours.explain_mismatch(&theirs), "");
        assert_eq!(ours.id(), theirs.id());
        theirs.dtype = "fp8".into();
        theirs.geometry.tp_size = 8;
        theirs.salt = "hush".into();
        let told = ours.explain_mismatch(&theirs);
        assert_eq!(
            told,
            r#"dtype: "bf16" here, "fp8" there; tp_size: 1 here, 8 there; salt differs"#
        );
        assert_ne!(ours.id(), theirs.id());
    }
}
