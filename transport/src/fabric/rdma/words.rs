//! What the fabrics of two peers say to each other beside the messages (`docs/rdma.md`).
//!
//! ```text
//! Hail    dialler → acceptor   its version and ports, and the paths that it wants
//! Paths   acceptor → dialler   its half of the channels of these paths, or why there is none
//! Join    dialler → acceptor   the other halves; a path that is missing failed
//! Ready   acceptor → dialler   which of them are connected
//!         dialler → acceptor   on which of them something got through
//! Open    asks for the keys of a window; Opened gives them, Denied does not
//! Taken   so many messages of the other side were taken
//! Halt    asks to stop using a window; Halted says that nothing of it is under way any more
//! Shut    a path was taken down, and so many immediates came through it; Closed says the same of
//!         the other side
//! ```
//! Decoding is a pure function of bytes that anybody may have sent.

use super::device::Keys;
use crate::outcome::Reason;
use crate::window::{Access, WindowId};

/// The version of these words, and of what goes before messages.
pub(super) const VERSION: u16 = 2;
/// Paths between two peers at most.
pub(super) const PATHS_MAX: usize = 16;
/// What a device has to say about a port, bytes.
#[cfg(test)]
pub(super) const PORT_BYTES_MAX: usize = 256;
/// What a device has to say about a channel, bytes.
pub(super) const BLOB_BYTES_MAX: usize = 512;

/// A channel half: which path, which of its channels, and what the device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) path: u8,
    pub(super) generation: u32,
    /// What the device says; or why there is no channel.
    pub(super) blob: Result<Vec<u8>, String>,
}

/// The keys of a window over one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathKeys {
    pub(super) path: u8,
    pub(super) generation: u32,
    pub(super) keys: Keys,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Hail { version: u16, join: u32, ports: Vec<Vec<u8>>, wanted: Vec<u8> },
    Paths { version: u16, join: u32, ports: Vec<Vec<u8>>, halves: Vec<Half> },
    Join { join: u32, halves: Vec<Half> },
    Ready { join: u32, paths: Vec<(u8, u32)> },
    Open { ask: u32, window: WindowId, key: u64 },
    Opened { ask: u32, len: u64, access: Access, paths: Vec<PathKeys> },
    Denied { ask: u32, reason: Reason },
    Halt { window: WindowId },
    Halted { window: WindowId },
    Shut { path: u8, generation: u32, arrived: [u64; 2] },
    Closed { path: u8, generation: u32, arrived: [u64; 2] },
    Taken { count: u64 },
}

impl Word {
    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Writer(Vec::with_capacity(64));
        match self {
            Self::Hail { version, join, ports, wanted } => {
                to.put([1]).put(version.to_le_bytes()).put(join.to_le_bytes());
                to.list(ports, |to, port| to.blob(port));
                to.list(wanted, |to, path| {
                    to.put([*path]);
                });
            }
            Self::Paths { version, join, ports, halves } => {
                to.put([2]).put(version.to_le_bytes()).put(join.to_le_bytes());
                to.list(ports, |to, port| to.blob(port));
                to.list(halves, Writer::half);
            }
            Self::Join { join, halves } => {
                to.put([3]).put(join.to_le_bytes());
                to.list(halves, Writer::half);
            }
            Self::Ready { join, paths } => {
                to.put([4]).put(join.to_le_bytes());
                to.list(paths, |to, (path, generation)| {
                    to.put([*path]).put(generation.to_le_bytes());
                });
            }
            Self::Open { ask, window, key } => {
                to.put([5]).put(ask.to_le_bytes()).window(*window).put(key.to_le_bytes());
            }
            Self::Opened { ask, len, access, paths } => {
                to.put([6]).put(ask.to_le_bytes()).put(len.to_le_bytes()).put([access.bits()]);
                to.list(paths, |to, it| {
                    to.put([it.path]).put(it.generation.to_le_bytes());
                    for word in [it.keys.keys[0], it.keys.keys[1], it.keys.base] {
                        to.put(word.to_le_bytes());
                    }
                });
            }
            Self::Denied { ask, reason } => {
                to.put([7]).put(ask.to_le_bytes()).put([*reason as u8]);
            }
            Self::Halt { window } => {
                to.put([8]).window(*window);
            }
            Self::Halted { window } => {
                to.put([9]).window(*window);
            }
            Self::Shut { path, generation, arrived } => {
                to.put([10]).shut(*path, *generation, arrived);
            }
            Self::Closed { path, generation, arrived } => {
                to.put([11]).shut(*path, *generation, arrived);
            }
            Self::Taken { count } => {
                to.put([12]).put(count.to_le_bytes());
            }
        }
        to.0
    }

    /// The word that these bytes are; `None` when they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let word = match from.byte()? {
            1 => Self::Hail {
                version: from.short()?,
                join: from.word()?,
                ports: from.list(Reader::blob)?,
                wanted: from.list(Reader::path)?,
            },
            2 => Self::Paths {
                version: from.short()?,
                join: from.word()?,
                ports: from.list(Reader::blob)?,
                halves: from.list(Reader::half)?,
            },
            3 => Self::Join { join: from.word()?, halves: from.list(Reader::half)? },
            4 => Self::Ready {
                join: from.word()?,
                paths: from.list(|from| Some((from.path()?, from.word()?)))?,
            },
            5 => Self::Open { ask: from.word()?, window: from.window()?, key: from.long()? },
            6 => Self::Opened {
                ask: from.word()?,
                len: from.long()?,
                access: Access::from_bits(from.byte()?),
                paths: from.list(|from| {
                    let (path, generation) = (from.path()?, from.word()?);
                    let keys = Keys { keys: [from.long()?, from.long()?], base: from.long()? };
                    Some(PathKeys { path, generation, keys })
                })?,
            },
            7 => Self::Denied {
                ask: from.word()?,
                reason: *Reason::ALL.get(usize::from(from.byte()?))?,
            },
            8 => Self::Halt { window: from.window()? },
            9 => Self::Halted { window: from.window()? },
            kind @ (10 | 11) => {
                let (path, generation) = (from.path()?, from.word()?);
                let arrived = [from.long()?, from.long()?];
                match kind {
                    10 => Self::Shut { path, generation, arrived },
                    _ => Self::Closed { path, generation, arrived },
                }
            }
            12 => Self::Taken { count: from.long()? },
            _ => return None,
        };
        from.0.is_empty().then_some(word)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn blob(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(BLOB_BYTES_MAX)];
        self.put((bytes.len() as u16).to_le_bytes());
        self.0.extend(bytes);
    }

    fn window(&mut self, window: WindowId) -> &mut Self {
        self.put(window.slot.to_le_bytes()).put(window.generation.to_le_bytes())
    }

    fn half(&mut self, half: &Half) {
        self.put([half.path, u8::from(half.blob.is_ok())]).put(half.generation.to_le_bytes());
        match &half.blob {
            Ok(blob) => self.blob(blob),
            Err(why) => self.blob(why.as_bytes()),
        }
    }

    fn shut(&mut self, path: u8, generation: u32, arrived: &[u64; 2]) {
        self.put([path]).put(generation.to_le_bytes());
        self.put(arrived[0].to_le_bytes()).put(arrived[1].to_le_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        let items = &items[..items.len().min(PATHS_MAX)];
        self.put([items.len() as u8]);
        for item in items {
            put(self, item);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn path(&mut self) -> Option<u8> {
        self.byte().filter(|path| usize::from(*path) < PATHS_MAX)
    }

    fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn window(&mut self) -> Option<WindowId> {
        Some(WindowId { slot: self.word()?, generation: self.word()? })
    }

    fn blob(&mut self) -> Option<Vec<u8>> {
        let len = usize::from(self.short()?);
        if len > BLOB_BYTES_MAX {
            return None;
        }
        let (blob, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(blob.to_vec())
    }

    fn half(&mut self) -> Option<Half> {
        let (path, is_there) = (self.path()?, self.byte()?);
        let generation = self.word()?;
        let blob = self.blob()?;
        let blob = match is_there {
            0 => Err(String::from_utf8(blob).ok()?),
            1 => Ok(blob),
            _ => return None,
        };
        Some(Half { path, generation, blob })
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::from(self.byte()?);
        if count > PATHS_MAX {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words() -> impl Strategy<Value = Word> {
        let blob = || prop::collection::vec(any::<u8>(), 0..60);
        let window = (any::<u32>(), any::<u32>())
            .prop_map(|(slot, generation)| WindowId { slot, generation });
        let path = 0..PATHS_MAX as u8;
        let half = (
            path.clone(),
            any::<u32>(),
            prop_oneof![blob().prop_map(Ok), "[ -~]{0,40}".prop_map(Err)],
        )
            .prop_map(|(path, generation, blob)| Half { path, generation, blob });
        let halves = prop::collection::vec(half, 0..PATHS_MAX);
        let keys = (path.clone(), any::<u32>(), any::<[u64; 3]>()).prop_map(
            |(path, generation, [a, b, base])| PathKeys {
                path,
                generation,
                keys: Keys { keys: [a, b], base },
            },
        );
        prop_oneof![
            (
                any::<u16>(),
                any::<u32>(),
                prop::collection::vec(blob(), 0..8),
                prop::collection::vec(path.clone(), 0..8)
            )
                .prop_map(|(version, join, ports, wanted)| Word::Hail {
                    version,
                    join,
                    ports,
                    wanted
                }),
            (any::<u16>(), any::<u32>(), prop::collection::vec(blob(), 0..8), halves.clone())
                .prop_map(|(version, join, ports, halves)| Word::Paths {
                    version,
                    join,
                    ports,
                    halves
                }),
            (any::<u32>(), halves).prop_map(|(join, halves)| Word::Join { join, halves }),
            (any::<u32>(), prop::collection::vec((path.clone(), any::<u32>()), 0..9))
                .prop_map(|(join, paths)| Word::Ready { join, paths }),
            (any::<u32>(), window.clone(), any::<u64>())
                .prop_map(|(ask, window, key)| Word::Open { ask, window, key }),
            (any::<u32>(), any::<u64>(), 0u8..8, prop::collection::vec(keys, 0..9)).prop_map(
                |(ask, len, access, paths)| Word::Opened {
                    ask,
                    len,
                    access: Access::from_bits(access),
                    paths
                }
            ),
            (any::<u32>(), 0..Reason::ALL.len())
                .prop_map(|(ask, at)| Word::Denied { ask, reason: Reason::ALL[at] }),
            window.clone().prop_map(|window| Word::Halt { window }),
            window.prop_map(|window| Word::Halted { window }),
            (path.clone(), any::<u32>(), any::<[u64; 2]>())
                .prop_map(|(path, generation, arrived)| Word::Shut { path, generation, arrived }),
            (path, any::<u32>(), any::<[u64; 2]>())
                .prop_map(|(path, generation, arrived)| Word::Closed { path, generation, arrived }),
        ]
    }

    proptest! {
        #[test]
        fn words_survive_the_wire(word in words()) {
            prop_assert_eq!(Word::decode(&word.encode()), Some(word));
        }

        #[test]
        fn nonsense_is_no_word(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(word) = Word::decode(&bytes) {
                prop_assert_eq!(Word::decode(&word.encode()), Some(word));
            }
        }
    }

    #[test]
    fn the_longest_word_fits() {
        let half = Half { path: 0, generation: 0, blob: Ok(vec![0; BLOB_BYTES_MAX]) };
        let word = Word::Paths {
            version: 0,
            join: 0,
            ports: vec![vec![0; PORT_BYTES_MAX]; PATHS_MAX],
            halves: vec![half; PATHS_MAX],
        };
        assert!(word.encode().len() <= crate::fabric::tcp::WORD_BYTES_MAX);
    }
}
