//! The memory oracle: what each byte of a region may be.

use std::fmt;
use std::sync::Arc;

use tranship_transport::{Memory, Outcome};

use crate::dice::Dice;

/// What is known of a region's bytes. A byte may change only to what a transfer that is permitted
/// to touch it and has not provably ended puts there.
pub(crate) struct Shadow {
    memory: Arc<Memory>,
    known: Vec<u8>,
    now: Vec<u8>,
    permits: Vec<Permit>,
}

/// A transfer's right to change bytes.
struct Permit {
    id: u64,
    /// Which bytes, in order, and what it puts there.
    bytes: Vec<(u16, u8)>,
    /// Another had or has the right to some of them.
    contested: bool,
    /// It did change a byte, and nobody else can have.
    moved: bool,
}

impl Permit {
    fn value(&self, at: usize) -> Option<u8> {
        let found = self.bytes.binary_search_by_key(&at, |(at, _)| usize::from(*at));
        found.ok().map(|index| self.bytes[index].1)
    }

    fn crosses(&self, other: &Self) -> bool {
        self.bytes.iter().any(|(at, _)| other.value(usize::from(*at)).is_some())
    }
}

impl Shadow {
    /// Of a region whose bytes are these now.
    pub(crate) fn new(memory: &Arc<Memory>, bytes: Vec<u8>) -> Self {
        memory.write_at(0, &bytes).expect("as long as the memory");
        let now = bytes.clone();
        Self { memory: Arc::clone(memory), known: bytes, now, permits: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.known
    }

    /// Permits a transfer to put these bytes there.
    pub(crate) fn permit(&mut self, id: u64, mut bytes: Vec<(u16, u8)>) {
        bytes.sort_unstable();
        let mut permit = Permit { id, bytes, contested: false, moved: false };
        for other in &mut self.permits {
            if permit.crosses(other) {
                permit.contested = true;
                other.contested = true;
            }
        }
        self.permits.push(permit);
    }

    /// Looks at every byte; panics at one that nobody may have changed.
    pub(crate) fn look(&mut self, whose: &impl fmt::Display) {
        self.memory.read_at(0, &mut self.now).expect("as long as the memory");
        if self.now == self.known {
            return;
        }
        for at in 0..self.now.len() {
            let value = self.now[at];
            if value == self.known[at] {
                continue;
            }
            let may = |permit: &&mut Permit| permit.value(at) == Some(value);
            let mut may = self.permits.iter_mut().filter(may);
            let Some(first) = may.next() else {
                let permits: Vec<_> = self.permits.iter().map(|permit| permit.id).collect();
                panic!(
                    "{whose}: byte {at} became {value:#04x} from {:#04x}; transfers that may touch \
                     the region: {permits:?}",
                    self.known[at]
                );
            };
            if may.next().is_none() {
                first.moved = true;
            }
            self.known[at] = value;
        }
    }

    /// A transfer ended: what it claims is checked, and from now on it may change nothing. To be
    /// called after [`Shadow::look`]. Its pages are used for something else at once, mostly.
    pub(crate) fn end(&mut self, id: u64, outcome: Outcome, dice: &mut Dice) {
        let Some(permit) = self.take(id) else { return };
        match outcome {
            Outcome::Done if !permit.contested => {
                let missing =
                    permit.bytes.iter().find(|(at, value)| self.known[usize::from(*at)] != *value);
                assert!(
                    missing.is_none(),
                    "transfer {id} is done, but byte {missing:?} is not there"
                );
            }
            Outcome::Rejected(_) => {
                assert!(!permit.moved, "transfer {id} was {outcome}, but it changed bytes");
            }
            Outcome::Done | Outcome::Fenced(_) | Outcome::Lost(_) => {}
        }
        self.reuse(&permit, dice);
    }

    /// A transfer is fenced by other means than its own end.
    pub(crate) fn fence(&mut self, id: u64, dice: &mut Dice) {
        if let Some(permit) = self.take(id) {
            self.reuse(&permit, dice);
        }
    }

    /// Nothing may change any more.
    pub(crate) fn fence_all(&mut self) {
        self.permits.clear();
    }

    /// Whether all the bytes of an uncontested transfer are there.
    pub(crate) fn is_there(&self, id: u64) -> bool {
        let of = |permit: &&Permit| permit.id == id && !permit.contested;
        self.permits.iter().find(of).is_none_or(|permit| {
            permit.bytes.iter().all(|(at, value)| self.known[usize::from(*at)] == *value)
        })
    }

    fn take(&mut self, id: u64) -> Option<Permit> {
        let at = self.permits.iter().position(|permit| permit.id == id)?;
        Some(self.permits.swap_remove(at))
    }

    /// Puts something else where a transfer was, so that a late write of the same bytes shows.
    fn reuse(&mut self, permit: &Permit, dice: &mut Dice) {
        if permit.contested || dice.percent(25) {
            return;
        }
        let salt = dice.bits() as u8 | 1;
        for (at, _) in &permit.bytes {
            self.known[usize::from(*at)] ^= salt;
        }
        self.memory.write_at(0, &self.known).expect("as long as the memory");
    }
}
