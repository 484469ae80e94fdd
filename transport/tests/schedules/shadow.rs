//! The memory oracle: what each byte of a region may be.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tranship_transport::{Memory, Outcome};

use crate::dice::Dice;

/// Bytes that are compared at once.
const LINE: usize = 64;

/// What is known of a region's bytes. A byte may change only to what a transfer that is permitted
/// to touch it and has not provably ended puts there.
pub(crate) struct Shadow {
    memory: Arc<Memory>,
    known: Vec<u8>,
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
    /// Its bytes stay once it has ended.
    kept: bool,
}

impl Permit {
    /// The first and the last of its bytes.
    fn span(&self) -> Option<(usize, usize)> {
        let (first, last) = (self.bytes.first()?.0, self.bytes.last()?.0);
        Some((usize::from(first), usize::from(last)))
    }

    fn reaches(&self, range: &Range<usize>) -> bool {
        self.span().is_some_and(|(first, last)| first < range.end && last >= range.start)
    }

    fn value(&self, at: usize) -> Option<u8> {
        let found = self.bytes.binary_search_by_key(&at, |(at, _)| usize::from(*at));
        found.ok().map(|index| self.bytes[index].1)
    }

    fn crosses(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (self.span(), other.span()) else { return false };
        let both = a.0.max(b.0)..=a.1.min(b.1);
        !both.is_empty()
            && self.bytes.iter().any(|(at, _)| {
                let at = usize::from(*at);
                both.contains(&at) && other.value(at).is_some()
            })
    }
}

impl Shadow {
    /// Of a region whose bytes are these now.
    pub(crate) fn new(memory: &Arc<Memory>, bytes: Vec<u8>) -> Self {
        memory.write_at(0, &bytes).expect("as long as the memory");
        assert_eq!(bytes.len(), memory.len());
        Self { memory: Arc::clone(memory), known: bytes, permits: Vec::new() }
    }

    /// The bytes there are. Word by word, as [`Memory::read_at`] reads them, looking would take most
    /// of the time of a schedule.
    fn now(memory: &Memory) -> &[u8] {
        // SAFETY: the memory is as long as that. The simulated network moves bytes only while it is
        // driven, on this thread, and nothing drives it while this borrow lives.
        unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.known
    }

    /// Permits a transfer to put these bytes there.
    pub(crate) fn permit(&mut self, id: u64, mut bytes: Vec<(u16, u8)>) {
        bytes.sort_unstable();
        let mut permit = Permit { id, bytes, contested: false, moved: false, kept: false };
        for other in &mut self.permits {
            if permit.crosses(other) {
                permit.contested = true;
                other.contested = true;
            }
        }
        self.permits.push(permit);
    }

    /// What a transfer puts there is not to be replaced by something else once it has ended.
    pub(crate) fn keep(&mut self, id: u64) {
        self.permits.iter_mut().filter(|permit| permit.id == id).for_each(|it| it.kept = true);
    }

    /// Whether a transfer may still change something.
    pub(crate) fn permits(&self, id: u64) -> bool {
        self.permits.iter().any(|permit| permit.id == id)
    }

    /// Puts bytes there, before anybody else may.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory.write_at(at, bytes).expect("inside the memory");
        self.known[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Looks at every byte; panics at one that nobody may have changed.
    pub(crate) fn look(&mut self, whose: &impl fmt::Display) {
        let now = Self::now(&self.memory);
        if now == self.known {
            return;
        }
        let mut changed = Vec::new();
        for line in (0..now.len()).step_by(LINE) {
            let line = line..(line + LINE).min(now.len());
            if now[line.clone()] == self.known[line.clone()] {
                continue;
            }
            let mut near: Vec<_> =
                self.permits.iter_mut().filter(|permit| permit.reaches(&line)).collect();
            for at in line.filter(|at| now[*at] != self.known[*at]) {
                if attribute(&mut near, at, now[at]).is_none() {
                    let permits: Vec<_> = self.permits.iter().map(|permit| permit.id).collect();
                    panic!(
                        "{whose}: byte {at} became {:#04x} from {:#04x}; transfers that may touch \
                         the region: {permits:?}",
                        now[at], self.known[at]
                    );
                }
                changed.push(at);
            }
        }
        for at in changed {
            self.known[at] = now[at];
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
        if permit.contested || permit.kept || dice.percent(25) {
            return;
        }
        let salt = dice.bits() as u8 | 1;
        for (at, _) in &permit.bytes {
            self.known[usize::from(*at)] ^= salt;
        }
        if let Some((first, last)) = permit.span() {
            self.memory.write_at(first, &self.known[first..=last]).expect("inside the memory");
        }
    }
}

/// Finds a transfer that may have put `value` there; `None` when nobody may.
fn attribute(permits: &mut [&mut Permit], at: usize, value: u8) -> Option<()> {
    let mut may = permits.iter_mut().filter(|permit| permit.value(at) == Some(value));
    let first = may.next()?;
    if may.next().is_none() {
        first.moved = true;
    }
    Some(())
}
