//! Memory that the kernel has pinned once, so that it need not for every operation.

use std::fmt;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use io_uring::IoUring;
use rustix::process::{Resource, getrlimit};
use tranship_transport::memory::Memory;

use crate::tier::Span;

/// Places in the kernel's table.
const SLOTS: usize = 1024;
/// The kernel takes no more in one place.
pub(super) const SLOT_BYTES: usize = 1 << 30;

/// What is registered with a ring.
pub(super) struct Buffers {
    /// By the address of what counts a memory's owners, which is unique while we hold a `Weak` to it;
    /// the address of its bytes is not, once it is unmapped.
    known: HashMap<usize, Known>,
    taken: Vec<bool>,
    slot_bytes: usize,
    /// Why something is not registered.
    shortfall: Option<String>,
    /// Bytes registered, and told of.
    pinned: u64,
    told: u64,
}

struct Known {
    memory: Weak<Memory>,
    len: usize,
    /// The first of its places; none if it could not be registered.
    first: Option<usize>,
}

impl Buffers {
    /// A table in a ring that has none yet.
    pub(super) fn new(ring: &IoUring, slot_bytes: usize) -> Self {
        let made = ring.submitter().register_buffers_sparse(SLOTS as u32);
        let shortfall = made.err().map(|error| format!("no table ({error}; Linux 5.19 has them)"));
        let taken = vec![shortfall.is_some(); SLOTS];
        Self { known: HashMap::new(), taken, slot_bytes, shortfall, pinned: 0, told: 0 }
    }

    /// Pins a memory, if that can be done.
    pub(super) fn register(&mut self, ring: &IoUring, memory: &Arc<Memory>) {
        self.forget_dead(ring);
        let (key, len) = (Arc::as_ptr(memory).addr(), memory.len());
        if len == 0 || self.known.contains_key(&key) {
            return;
        }
        self.told += len as u64;
        let first = self.pin(ring, memory).map_err(|why| self.fall_short(len, &why)).ok();
        if first.is_some() {
            self.pinned += len as u64;
        }
        self.known.insert(key, Known { memory: Arc::downgrade(memory), len, first });
    }

    /// The same memories in a new ring.
    pub(super) fn again(&mut self, ring: &IoUring) {
        let memories: Vec<_> =
            self.known.values().filter_map(|known| known.memory.upgrade()).collect();
        *self = Self::new(ring, self.slot_bytes);
        for memory in memories {
            self.register(ring, &memory);
        }
    }

    /// Where a span is registered, if it lies in one place.
    pub(super) fn find(&self, span: &Span) -> Option<u16> {
        let known = self.known.get(&Arc::as_ptr(span.memory()).addr())?;
        let (start, end) = (span.offset(), span.offset() + span.len());
        let place = start / self.slot_bytes;
        let inside = end <= (place + 1) * self.slot_bytes;
        inside.then_some((known.first? + place) as u16)
    }

    fn pin(&mut self, ring: &IoUring, memory: &Memory) -> Result<usize, String> {
        let count = memory.len().div_ceil(self.slot_bytes);
        let mut runs = self.taken.windows(count);
        let Some(first) = runs.position(|run| run.iter().all(|taken| !taken)) else {
            return Err(format!("a table of {SLOTS} places of 1 GiB is full"));
        };
        for place in 0..count {
            let at = place * self.slot_bytes;
            let iov_len = self.slot_bytes.min(memory.len() - at);
            let iov_base = memory.as_ptr().wrapping_add(at).cast();
            let buffer = [libc::iovec { iov_base, iov_len }];
            // SAFETY: the bytes are mapped now, and the kernel pins the pages themselves: should they be
            // unmapped before they are let go, it still writes to these pages and no others, and only
            // for operations whose spans keep them mapped.
            let update = unsafe {
                ring.submitter().register_buffers_update((first + place) as u32, &buffer, None)
            };
            if let Err(error) = update {
                self.unpin(ring, first, place);
                return Err(error.to_string());
            }
            self.taken[first + place] = true;
        }
        Ok(first)
    }

    fn unpin(&mut self, ring: &IoUring, first: usize, count: usize) {
        for place in first..first + count {
            let nothing = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }];
            // SAFETY: nothing is registered in this place from now on.
            let update =
                unsafe { ring.submitter().register_buffers_update(place as u32, &nothing, None) };
            // A place that cannot be emptied is not used again.
            self.taken[place] = update.is_err();
        }
    }

    /// Unpins memory that nobody has any more.
    pub(super) fn forget_dead(&mut self, ring: &IoUring) {
        let dead = self.known.extract_if(|_, known| known.memory.strong_count() == 0);
        let dead: Vec<_> = dead.map(|(_, known)| known).collect();
        for known in dead {
            self.told -= known.len as u64;
            if let Some(first) = known.first {
                self.pinned -= known.len as u64;
                self.unpin(ring, first, known.len.div_ceil(self.slot_bytes));
            }
        }
    }

    /// Says once that something is not registered.
    fn fall_short(&mut self, len: usize, why: &str) {
        if self.shortfall.is_some() {
            return;
        }
        let limit = getrlimit(Resource::Memlock).current;
        let limit = limit.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
        let text = format!(
            "{} MiB were not: {why}; the memlock limit is {limit}: LimitMEMLOCK=infinity in the unit or \
             ulimit -l unlimited in the shell",
            len >> 20
        );
        tracing::warn!(
            "memory is not registered with io_uring, which costs processor time: {text}"
        );
        self.shortfall = Some(text);
    }
}

impl fmt::Display for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match (&self.shortfall, self.told) {
            (Some(why), _) => {
                write!(f, "{} of {} MiB registered ({why})", mib(self.pinned), mib(self.told))
            }
            (None, 0) => f.write_str("no registered buffers"),
            (None, told) => write!(f, "{} MiB of registered buffers", mib(told)),
        }
    }
}
