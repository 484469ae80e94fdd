//! Where things are in the bucket.
//!
//! ```text
//! PREFIX/v1/packs/ab/abcdef…                      a pack, by the BLAKE3 of its bytes
//! PREFIX/v1/manifests/NODE/LEVEL-SEQUENCE-HASH    some packs of a node
//! PREFIX/v1/nodes/NODE                            touched from time to time
//! PREFIX/v1/probes/NODE-SESSION                   shows at the start that writing works
//! ```

use std::fmt;

use object_store::path::Path;

/// Bytes of a [`PackId`].
pub(super) const PACK_ID_BYTES: usize = 32;

/// Packs are spread over so many folders, so that a listing can go through them piece by piece.
pub(super) const SHARDS: u16 = 256;

/// The name of a pack: the BLAKE3 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId([u8; PACK_ID_BYTES]);

impl PackId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; PACK_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PACK_ID_BYTES] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; PACK_ID_BYTES];
        if text.len() != 2 * PACK_ID_BYTES || !text.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..][..2], 16).ok()?;
        }
        let id = Self(bytes);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// The name of a manifest, all of which is in its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ManifestName {
    pub(super) node: String,
    pub(super) level: u8,
    pub(super) sequence: u64,
    /// The first half of the BLAKE3 of its bytes: two daemons that go by one name by mistake do not
    /// overwrite each other's.
    pub(super) hash: u128,
}

/// The paths below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: Path,
}

impl Paths {
    pub(super) fn new(prefix: &Path) -> Self {
        Self { root: prefix.clone().join("v1") }
    }

    pub(super) fn pack(&self, id: &PackId) -> Path {
        let name = id.to_string();
        self.root.clone().join("packs").join(&name[..2]).join(name.as_str())
    }

    /// The folder of the packs whose id begins with this byte.
    pub(super) fn shard(&self, shard: u8) -> Path {
        self.root.clone().join("packs").join(format!("{shard:02x}"))
    }

    pub(super) fn pack_of(&self, path: &Path) -> Option<PackId> {
        PackId::parse(path.filename()?)
    }

    pub(super) fn manifests(&self) -> Path {
        self.root.clone().join("manifests")
    }

    pub(super) fn manifest(&self, name: &ManifestName) -> Path {
        let ManifestName { node, level, sequence, hash } = name;
        let file = format!("{level}-{sequence:016x}-{hash:032x}");
        self.manifests().join(node.as_str()).join(file)
    }

    pub(super) fn manifest_of(&self, path: &Path) -> Option<ManifestName> {
        let mut parts = path.prefix_match(&self.manifests())?;
        let (node, file) = (parts.next()?, parts.next()?);
        let mut fields = file.as_ref().split('-');
        let name = ManifestName {
            node: node.as_ref().to_owned(),
            level: fields.next()?.parse().ok()?,
            sequence: u64::from_str_radix(fields.next()?, 16).ok()?,
            hash: u128::from_str_radix(fields.next()?, 16).ok()?,
        };
        // What is written otherwise was not written by a daemon.
        (self.manifest(&name) == *path).then_some(name)
    }

    /// What a node touches from time to time to show that it lives.
    pub(super) fn node(&self, node: &str) -> Path {
        self.nodes().join(node)
    }

    pub(super) fn nodes(&self) -> Path {
        self.root.clone().join("nodes")
    }

    pub(super) fn probe(&self, node: &str, session: u64) -> Path {
        self.root.clone().join("probes").join(format!("{node}-{session:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_from_their_paths() {
        let paths = Paths::new(&Path::from("some/where"));
        let id = PackId::from_bytes(std::array::from_fn(|at| at as u8 * 7));
        let path = paths.pack(&id);
        assert!(path.as_ref().starts_with("some/where/v1/packs/00/00070e"), "{path}");
        assert_eq!(paths.pack_of(&path), Some(id));
        assert_eq!(paths.pack_of(&Path::from("x/00070E")), None);

        let name = ManifestName { node: "n-1.a".into(), level: 2, sequence: 77, hash: 5 };
        let path = paths.manifest(&name);
        assert_eq!(paths.manifest_of(&path), Some(name));
        for other in ["v1/manifests/n/1-2-3", "some/where/v1/manifests/n/x", "some/where/v1/packs"]
        {
            assert_eq!(paths.manifest_of(&Path::from(other)), None, "{other}");
        }
    }
}
