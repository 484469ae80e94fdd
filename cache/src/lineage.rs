//! Prefix lineage: the key of a block depends on every token before it.

use crate::identity::Identity;
use crate::key::Key;

/// Domain of the per-identity hashing key; changing it changes every key.
const LINEAGE_CONTEXT: &str = "tranship 2026-11 block lineage v1";

/// Domain of the keys of blocks that an engine has hashed itself; changing it changes every such key.
const HASHED_CONTEXT: &str = "tranship 2026-11 engine block hash v1";

/// Tags that keep contents of different kinds apart.
const TAG_BYTES: u8 = 0;
const TAG_TOKENS: u8 = 1;

/// A block's key with its place in the chain of prefixes.
///
/// `position` counts blocks from the start of the sequence. An engine that brings its own hashes and
/// knows no lineage leaves `parent` out; the block then protects no ancestor from eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Link {
    /// The block itself.
    pub key: Key,
    /// The block right before it; none at the start of a sequence.
    pub parent: Option<Key>,
    /// Blocks before this one in its sequence.
    pub position: u32,
}

/// Builds the links of one sequence, block by block.
///
/// `key = BLAKE3(secret(identity), parent ‖ kind ‖ content)` cut to 128 bits, where the secret is
/// derived from the whole identity, its salt and tenant included. Who does not know a tenant's salt
/// can neither compute that tenant's keys nor look for contents that collide with them.
///
/// ```
/// use tranship_cache::identity::{Geometry, Identity};
/// use tranship_cache::Chain;
///
/// let identity = Identity::new("llama", "r1", "bf16", Geometry::default(), 16);
/// let mut chain = Chain::new(&identity);
/// let first = chain.push_tokens(&[1, 2, 3]);
/// let second = chain.push_tokens(&[4, 5, 6]);
/// assert_eq!(second.parent, Some(first.key));
/// assert_eq!(second.position, 1);
/// ```
#[derive(Clone)]
pub struct Chain {
    root: blake3::Hasher,
    parent: Option<Key>,
    position: u32,
}

impl Chain {
    /// An empty sequence under `identity`.
    pub fn new(identity: &Identity) -> Self {
        let secret = blake3::derive_key(LINEAGE_CONTEXT, &identity.canonical());
        Self { root: blake3::Hasher::new_keyed(&secret), parent: None, position: 0 }
    }

    /// Goes on after `last`, the link of a block hashed earlier under the same identity.
    #[must_use]
    pub fn after(mut self, last: Link) -> Self {
        self.parent = Some(last.key);
        self.position = last.position.saturating_add(1);
        self
    }

    /// Adds the block with these content bytes.
    pub fn push(&mut self, content: &[u8]) -> Link {
        let mut hasher = self.start(TAG_BYTES);
        hasher.update(content);
        self.link(&hasher)
    }

    /// Adds the block of these tokens.
    pub fn push_tokens(&mut self, tokens: &[u32]) -> Link {
        let mut hasher = self.start(TAG_TOKENS);
        let mut bytes = [0_u8; 1024];
        for some in tokens.chunks(bytes.len() / 4) {
            for (to, token) in bytes.chunks_exact_mut(4).zip(some) {
                to.copy_from_slice(&token.to_le_bytes());
            }
            hasher.update(&bytes[..some.len() * 4]);
        }
        self.link(&hasher)
    }

    /// Blocks so far.
    pub fn len(&self) -> u32 {
        self.position
    }

    /// True before the first block.
    pub fn is_empty(&self) -> bool {
        self.position == 0
    }

    fn start(&self, tag: u8) -> blake3::Hasher {
        let mut hasher = self.root.clone();
        match &self.parent {
            Some(parent) => hasher.update(&[1]).update(parent.as_bytes()),
            None => hasher.update(&[0]),
        };
        hasher.update(&[tag]);
        hasher
    }

    fn link(&mut self, hasher: &blake3::Hasher) -> Link {
        let key = Key::truncate(&hasher.finalize());
        let link = Link { key, parent: self.parent, position: self.position };
        self.parent = Some(key);
        self.position = self.position.saturating_add(1);
        link
    }
}

/// Builds the links of one sequence whose blocks an engine has hashed itself, each hash over all
/// blocks before it.
///
/// `key = BLAKE3(context ‖ hash)` cut to 128 bits. The context holds what the engine's hash leaves out
/// (the hash's algorithm, the group of layers, the adapter's weights); the identity is no part of the
/// key, so that all shards of a model know a block by the same key, each under its own identity.
///
/// ```
/// use tranship_cache::lineage::Hashed;
///
/// let mut chain = Hashed::new(b"sha256");
/// let first = chain.push(&[1; 32]);
/// let second = chain.push(&[2; 32]);
/// assert_eq!((second.parent, second.position), (Some(first.key), 1));
/// assert_ne!(Hashed::new(b"xxhash").push(&[1; 32]).key, first.key);
/// ```
#[derive(Clone, Debug)]
pub struct Hashed {
    root: blake3::Hasher,
    parent: Option<Key>,
    position: u32,
}

impl Hashed {
    /// An empty sequence.
    #[must_use]
    pub fn new(context: &[u8]) -> Self {
        let mut root = blake3::Hasher::new_derive_key(HASHED_CONTEXT);
        root.update(&(context.len() as u64).to_le_bytes()).update(context);
        Self { root, parent: None, position: 0 }
    }

    /// Goes on at block `position`, after the block `parent` if that is known.
    #[must_use]
    pub fn at(mut self, position: u32, parent: Option<Key>) -> Self {
        (self.position, self.parent) = (position, parent);
        self
    }

    /// Adds the block with this hash.
    pub fn push(&mut self, hash: &[u8]) -> Link {
        let key = Key::truncate(&self.root.clone().update(hash).finalize());
        let link = Link { key, parent: self.parent, position: self.position };
        self.parent = Some(key);
        self.position = self.position.saturating_add(1);
        link
    }
}

/// Shows where the chain stands; the secret stays out of logs.
impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain")
            .field("parent", &self.parent)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Geometry;

    fn identity(salt: &str) -> Identity {
        let mut identity = Identity::new("m", "r", "bf16", Geometry::default(), 16);
        identity.salt = salt.into();
        identity
    }

    #[test]
    fn a_key_depends_on_every_block_before_it() {
        let id = identity("");
        let mut a = Chain::new(&id);
        let mut b = Chain::new(&id);
        a.push_tokens(&[1]);
        b.push_tokens(&[2]);
        assert_ne!(a.push_tokens(&[3]).key, b.push_tokens(&[3]).key);
    }

    #[test]
    fn salt_and_kind_keep_keys_apart() {
        let plain = Chain::new(&identity("")).push_tokens(&[1]);
        assert_ne!(plain.key, Chain::new(&identity("s")).push_tokens(&[1]).key);
        assert_ne!(plain.key, Chain::new(&identity("")).push(&1_u32.to_le_bytes()).key);
        assert_eq!(plain, Chain::new(&identity("")).push_tokens(&[1]));
    }

    #[test]
    fn a_chain_can_be_resumed() {
        let id = identity("");
        let mut whole = Chain::new(&id);
        let first = whole.push(b"one");
        let second = whole.push(b"two");
        assert_eq!(Chain::new(&id).after(first).push(b"two"), second);
        assert_eq!(whole.len(), 2);
    }

    #[test]
    fn tokens_hash_as_their_bytes_in_order() {
        let id = identity("");
        let tokens: Vec<u32> = (0..1000).collect();
        let mut swapped = tokens.clone();
        swapped.swap(998, 999);
        assert_ne!(Chain::new(&id).push_tokens(&tokens), Chain::new(&id).push_tokens(&swapped));
    }

    #[test]
    fn keys_never_change_between_versions() {
        let link = Chain::new(&identity("")).push_tokens(&[1, 2, 3]);
        assert_eq!(link.key.to_string(), "f500030d9ebe80f5de6396886e516efe");
    }
}
