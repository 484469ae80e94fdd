//! Connections that broke while writes were under way: the peer may still be landing what it got,
//! until something proves that it does not.
//!
//! None of them is ever forgotten without proof, or pages would be used again too early. So that
//! they stay few all the same, a peer that has many of them is sent no more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dial::wait;
use hashbrown::HashMap;

use crate::address::EngineId;
use crate::fabric::OpId;
use crate::time::Time;

/// Writes of one peer that are not proven, or under way and might have to be: as many as two
/// connections have at once. Beyond these no more are sent to it.
const WRITES_PER_PEER_MAX: usize = 8192;
/// Writes of all peers that are not proven: once there are so many, what is under way to the peer
/// counted, no more are sent to peers that have any. One that has none yet is well as far as we
/// know, and not bound by this: it may still add what it has under way, should it break. Half of
/// what an engine has under way, so that there is room for those.
const WRITES_MAX: usize = 32_768;

/// A connection that broke while writes were under way.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) engine: EngineId,
    pub(super) connection: u128,
    pub(super) endpoint: String,
    /// Whether a loopback address of the peer's is ours as well.
    pub(super) near: bool,
    pub(super) ops: Vec<OpId>,
    tries: u32,
    /// When to ask again; `None` while it is being asked, or where nobody can be.
    at: Option<Time>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// By number: the oldest first.
    list: BTreeMap<u32, Suspect>,
    ever: u32,
    /// Their writes, by peer and in all.
    by_engine: HashMap<EngineId, usize>,
    writes: usize,
    /// Whether it was said that some are refused.
    told: bool,
}

impl Suspects {
    /// Adds one that is asked at once, if it can be asked. Its number is given here.
    pub(super) fn add(
        &mut self,
        (engine, connection): (EngineId, u128),
        (endpoint, near): (String, bool),
        ops: Vec<OpId>,
        now: Time,
    ) {
        self.ever += 1;
        let can_be_asked = !endpoint.is_empty() && !endpoint.ends_with(":0");
        if !can_be_asked {
            tracing::warn!(?engine, "lost writes to a peer that cannot be asked; let it listen");
        }
        *self.by_engine.entry(engine).or_default() += ops.len();
        self.writes += ops.len();
        let (id, at) = (self.ever, can_be_asked.then_some(now));
        let new = Suspect { engine, connection, endpoint, near, ops, tries: 0, at };
        self.list.insert(id, new);
    }

    /// Takes one out that is proven.
    pub(super) fn remove(&mut self, id: u32) -> Option<Suspect> {
        let suspect = self.list.remove(&id)?;
        self.writes -= suspect.ops.len();
        if let Some(writes) = self.by_engine.get_mut(&suspect.engine) {
            *writes -= suspect.ops.len();
            if *writes == 0 {
                self.by_engine.remove(&suspect.engine);
            }
        }
        self.told = false;
        Some(suspect)
    }

    /// Whether one more write may be sent to a peer that has so many operations under way.
    pub(super) fn allow(&mut self, engine: EngineId, under_way: usize) -> bool {
        let Some(&lost) = self.by_engine.get(&engine) else { return true };
        if lost + under_way < WRITES_PER_PEER_MAX && self.writes + under_way < WRITES_MAX {
            return true;
        }
        if !std::mem::replace(&mut self.told, true) {
            let at = self.list.values().find(|it| it.engine == engine).map(|it| &it.endpoint);
            tracing::warn!(
                ?engine,
                "writes are refused: {lost} to this peer and {} in all may still be landing (at \
                 most {WRITES_PER_PEER_MAX} and {WRITES_MAX}); they are proven once the peer \
                 answers or ends, at {at:?}",
                self.writes
            );
        }
        false
    }

    pub(super) fn get(&self, id: u32) -> Option<&Suspect> {
        self.list.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Suspect> {
        self.list.get_mut(&id)
    }

    /// Their numbers, the oldest first.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.list.keys().copied().collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self { ever: self.ever, ..Self::default() };
    }

    #[cfg(any(feature = "fuzzing", all(not(loom), test)))]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// When a suspect is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    At(Time),
    /// It is being asked, or cannot be.
    None,
}

impl Suspect {
    pub(super) fn turn(&self, now: Time) -> Turn {
        match self.at {
            Some(at) if at <= now => Turn::Now,
            Some(at) => Turn::At(at),
            None => Turn::None,
        }
    }

    /// It is being asked.
    pub(super) fn asked(&mut self) {
        self.at = None;
    }

    /// It could not be asked.
    pub(super) fn ask_later(&mut self, now: Time, backoff: (Duration, Duration)) {
        self.at = Some(now + wait(self.tries, backoff));
        self.tries += 1;
    }

    #[cfg(all(not(loom), test))]
    pub(super) fn is_asked(&self) -> bool {
        self.at.is_none()
    }
}

#[cfg(all(not(loom), test))]
impl Suspects {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The oldest.
    pub(super) fn first(&self) -> &Suspect {
        self.list.first_key_value().unwrap().1
    }
}

#[cfg(all(not(loom), test))]
mod tests {
    use super::*;

    fn lose(suspects: &mut Suspects, engine: u128, writes: usize) {
        let ops = (0..writes as u64).map(OpId).collect();
        let (who, at) = ((EngineId(engine), 1), ("192.0.2.1:7420".to_owned(), false));
        suspects.add(who, at, ops, Time::ZERO);
    }

    #[test]
    fn a_peer_with_many_is_sent_no_more_until_some_are_proven() {
        let (ill, well) = (EngineId(1), EngineId(2));
        let mut suspects = Suspects::default();
        lose(&mut suspects, 1, WRITES_PER_PEER_MAX / 2);
        assert!(suspects.allow(ill, WRITES_PER_PEER_MAX / 2 - 1));
        assert!(!suspects.allow(ill, WRITES_PER_PEER_MAX / 2), "they might all be lost");
        lose(&mut suspects, 1, WRITES_PER_PEER_MAX / 2);
        assert!(!suspects.allow(ill, 0));
        assert!(suspects.allow(well, WRITES_MAX));
        let proven = suspects.remove(1).unwrap();
        assert_eq!(proven.ops.len(), WRITES_PER_PEER_MAX / 2);
        assert_eq!(suspects.ids(), [2]);
        assert!(suspects.allow(ill, 0));
        assert!(suspects.remove(1).is_none() && suspects.remove(2).is_some());
        assert_eq!((suspects.writes, suspects.by_engine.len()), (0, 0));
    }

    #[test]
    fn many_peers_together_are_bounded_too() {
        let mut suspects = Suspects::default();
        let peers = (WRITES_MAX / 1000 + 1) as u128;
        for engine in 0..peers {
            assert!(suspects.allow(EngineId(engine), 0), "it has lost none so far");
            lose(&mut suspects, engine, 1000);
        }
        assert!((0..peers).all(|engine| !suspects.allow(EngineId(engine), 0)));
        assert!(suspects.allow(EngineId(peers), 0));
        suspects.remove(1);
        suspects.remove(2);
        assert!(suspects.allow(EngineId(peers - 1), 0));
    }
}
