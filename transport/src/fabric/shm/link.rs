//! One connected peer: its windows, the mappings of its regions, and the rings.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::connection::{Connection, Rings};
use super::control::{Listed, Theirs};
use super::crossing::{Crossing, POLLER, cross};
use super::doorbell;
use super::gate::Waker;
use super::hazard;
use super::job::{Job, Transfer};
use super::ring::{Broken, Pushed};
use super::route::Route;
use crate::address::EngineId;
use crate::fabric::{self, Event, OpId, PeerId, Posted, RegionId, Remote, Status};
use crate::immediate::Immediate;
use crate::lane::Lane;
use crate::memory::{self, Memory};
use crate::outcome::Reason;
use crate::pages::Plan;
use crate::window::{Access, WindowId};

/// Transfers up to here are done when they are posted.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// If they have no more pieces than this on both sides together.
const SMALL_PIECES_MAX: u64 = 64;
/// Immediates taken from one peer in one turn.
const IMMEDIATES_PER_TURN: usize = 256;

/// A connected peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) engine: EngineId,
    pub(super) connection: Connection,
    rings: Rings,
    control: Arc<Theirs>,
    doorbell: OwnedFd,
    waker: Waker,
    /// Its regions that are mapped here.
    mappings: HashMap<RegionId, Arc<Memory>>,
    /// Its windows that were checked, by their places.
    known: Vec<Option<Known>>,
    /// Our regions that it has mapped.
    pub(super) given: HashSet<RegionId>,
    /// Operations that wait for a mapping.
    pub(super) waiting: Vec<Waiting>,
    /// Operations whose bytes are in place and whose immediates found no room, by lane.
    owed: [VecDeque<(OpId, Immediate)>; 2],
    tokens: u64,
}

/// A window that was checked against its owner's table. As long as its stamp is the same, nothing
/// of this changes.
#[derive(Debug, Clone, Copy)]
struct Known {
    window: WindowId,
    key: u64,
    region: RegionId,
    base: *mut u8,
    len: u64,
    access: Access,
}

// SAFETY: `base` points into a mapping that is kept as long as the entry.
unsafe impl Send for Known {}

/// An operation that waits for the answer to a map request.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) token: u64,
    pub(super) op: OpId,
    pub(super) wish: Wish,
}

/// What it wants then.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// To copy.
    Transfer(Transfer),
    /// To give the mapping away.
    Mapping(Remote),
}

impl Wish {
    pub(super) fn remote(&self) -> &Remote {
        match self {
            Self::Transfer(transfer) => &transfer.remote,
            Self::Mapping(remote) => remote,
        }
    }

    fn lane(&self) -> Lane {
        match self {
            Self::Transfer(transfer) => transfer.lane,
            Self::Mapping(_) => Lane::default(),
        }
    }
}

/// What became of a transfer that was begun.
#[derive(Debug)]
pub(super) enum Begun {
    /// This is the answer.
    Answer(Posted),
    /// It is large: to be moved chunk by chunk.
    Job(Job),
    /// The region has to be mapped first.
    Unmapped,
}

/// Where a transfer goes.
enum Place {
    /// Here.
    Mapped(*mut u8),
    /// In a region that is not mapped yet.
    Unmapped,
    /// Nowhere: it has no bytes.
    Nowhere,
}

impl Link {
    pub(super) fn new(
        engine: EngineId,
        connection: Connection,
        control: Theirs,
        doorbell: OwnedFd,
    ) -> Self {
        Self {
            engine,
            rings: connection.rings(),
            connection,
            control: Arc::new(control),
            doorbell,
            waker: Waker::default(),
            mappings: HashMap::new(),
            known: Vec::new(),
            given: HashSet::new(),
            waiting: Vec::new(),
            owed: Default::default(),
            tokens: 0,
        }
    }

    /// Sends a message, if there is room.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        immediate: Option<Immediate>,
    ) -> Result<Pushed, Broken> {
        let pushed = self.rings.messages_out.push(Some(bytes), immediate.map(|it| it.0))?;
        self.wake();
        Ok(pushed)
    }

    /// Begins a transfer, and ends it if it is small.
    pub(super) fn begin(
        &mut self,
        op: OpId,
        peer: PeerId,
        transfer: &Transfer,
    ) -> Result<Begun, Broken> {
        let refused = |reason| Ok(Begun::Answer(Posted::Refused(reason)));
        let Transfer { lane, immediate, .. } = *transfer;
        let place = match self.place(transfer) {
            Ok(place) => place,
            Err(reason) => return refused(reason),
        };
        let at = match place {
            Place::Mapped(at) => at,
            Place::Unmapped => return Ok(Begun::Unmapped),
            Place::Nowhere => return self.finish(op, lane, immediate).map(Begun::Answer),
        };
        let window = transfer.remote.window;
        let pages = transfer.pages.as_ref();
        let mut route = Route::new(transfer.direction, &transfer.local, at, pages);
        if route.left() > SMALL_BYTES_MAX || pages.is_some_and(many) {
            let Some(mapping) = self.mapping_of(window) else { return refused(Reason::Failed) };
            let crossing = Arc::new(Crossing {
                connection: self.connection.clone(),
                control: Arc::clone(&self.control),
                window,
                _mapping: mapping,
            });
            return Ok(Begun::Job(Job::new(op, peer, transfer, crossing, route)));
        }
        let copied = cross(&self.connection, &self.control, window, POLLER, || {
            let mut batch = route.batch();
            while route.left() > 0 {
                // SAFETY: the engine vouches for its own side until the operation ends; `place` has
                // checked the other side to lie in the mapping. Only the thread that polls runs
                // this.
                unsafe { route.feed(&mut batch, SMALL_BYTES_MAX) };
            }
        });
        if copied.is_none() {
            return refused(Reason::Stale);
        }
        self.finish(op, lane, immediate).map(Begun::Answer)
    }

    /// All bytes of an operation are in place: delivers its immediate, or owes it.
    pub(super) fn finish(
        &mut self,
        op: OpId,
        lane: Lane,
        immediate: Option<Immediate>,
    ) -> Result<Posted, Broken> {
        let Some(immediate) = immediate else { return Ok(Posted::Done) };
        // What is owed in this lane, or in the one ahead of it, goes first.
        let owed = self.owed[..=lane.index()].iter().any(|owed| !owed.is_empty());
        if !owed && self.deliver(immediate)? == Pushed::Done {
            return Ok(Posted::Done);
        }
        self.owed[lane.index()].push_back((op, immediate));
        Ok(Posted::Pending)
    }

    /// Owes the immediate of an operation no more; whether it was owed.
    pub(super) fn forgive(&mut self, op: OpId) -> bool {
        self.owed.iter_mut().any(|owed| {
            let at = owed.iter().position(|owed| owed.0 == op);
            at.and_then(|at| owed.remove(at)).is_some()
        })
    }

    /// Owes nothing any more; the operations whose immediates were owed.
    pub(super) fn forgive_all(&mut self) -> Vec<OpId> {
        self.owed.iter_mut().flat_map(std::mem::take).map(|owed| owed.0).collect()
    }

    /// Delivers what is owed, as far as there is room.
    pub(super) fn pay(&mut self, reports: &mut Vec<Event>) -> Result<(), Broken> {
        for lane in Lane::ALL {
            while let Some(&(op, immediate)) = self.owed[lane.index()].front() {
                if self.deliver(immediate)? == Pushed::Full {
                    return Ok(());
                }
                self.owed[lane.index()].pop_front();
                reports.push(Event::Completed { op, status: Status::Done });
            }
        }
        Ok(())
    }

    fn deliver(&mut self, immediate: Immediate) -> Result<Pushed, Broken> {
        let pushed = self.rings.immediates_out.push(None, Some(immediate.0))?;
        self.wake();
        Ok(pushed)
    }

    #[inline]
    fn wake(&mut self) {
        if self.waker.must_ring(self.control.epoch()) {
            doorbell::ring(&self.doorbell);
        }
    }

    /// Reports what has arrived, at most `messages` messages, and counts them down.
    pub(super) fn receive(
        &mut self,
        peer: PeerId,
        messages: &mut usize,
        reports: &mut Vec<Event>,
    ) -> Result<bool, Broken> {
        let reported = reports.len();
        for _ in 0..IMMEDIATES_PER_TURN {
            let Some(record) = self.rings.immediates_in.peek()? else { break };
            self.rings.immediates_in.take(record);
            if let Some(immediate) = record.immediate {
                reports.push(Event::Arrived { immediate: Immediate(immediate) });
            }
        }
        while *messages > 0 {
            let Some(record) = self.rings.messages_in.peek()? else { break };
            let bytes = self.rings.messages_in.take(record);
            if record.message.is_some() {
                *messages -= 1;
                reports.push(Event::Message { peer, bytes });
            }
            if let Some(immediate) = record.immediate {
                reports.push(Event::Arrived { immediate: Immediate(immediate) });
            }
        }
        let wanted = self.rings.immediates_in.release() | self.rings.messages_in.release();
        if wanted {
            self.wake();
        }
        Ok(reports.len() > reported)
    }

    /// Whether something has arrived; messages only count if `messages`.
    pub(super) fn has_arrivals(&mut self, messages: bool) -> bool {
        // Nonsense is for `receive` to report.
        self.rings.immediates_in.peek() != Ok(None)
            || (messages && self.rings.messages_in.peek() != Ok(None))
    }

    /// Whether something that found no room would find some now.
    pub(super) fn has_room_again(&mut self) -> bool {
        self.rings.immediates_out.has_room_again() != Ok(false)
            || self.rings.messages_out.has_room_again() != Ok(false)
    }

    /// Checks a transfer and finds the peer's end of it.
    #[inline]
    fn place(&mut self, transfer: &Transfer) -> Result<Place, Reason> {
        let Remote { window, key, offset } = transfer.remote;
        let pages = transfer.pages.as_ref();
        let reach = fabric::reach(&transfer.local, pages);
        if pages.is_some_and(|plan| plan.local().end() > transfer.local.len) {
            return Err(Reason::OutOfBounds);
        }
        let slot = window.slot as usize;
        if let Some(Some(known)) = self.known.get(slot)
            && known.window == window
        {
            if self.control.stamp(window.slot).load(std::sync::atomic::Ordering::Acquire)
                != hazard::stamp(window)
            {
                return Err(Reason::Stale);
            }
            if known.key != key.key {
                return Err(Reason::Forged);
            }
            allowed(known.access, known.len, transfer.needs(), offset, reach)?;
            // SAFETY: `offset` is within the window, which was checked to lie in its mapping.
            return Ok(Place::Mapped(unsafe { known.base.add(offset as usize) }));
        }
        let listed = self.control.look_up(window, key.key)?;
        allowed(listed.access, listed.len, transfer.needs(), offset, reach)?;
        if reach == 0 {
            return Ok(Place::Nowhere);
        }
        let Some(mapping) = self.mappings.get(&listed.region) else { return Ok(Place::Unmapped) };
        if mapping.access() == memory::Access::ReadOnly && listed.access.allows(Access::WRITE) {
            return Ok(Place::Unmapped);
        }
        if !lies_in(&listed, mapping.len()) {
            return Err(Reason::Failed);
        }
        // SAFETY: the window was just checked to lie in the mapping.
        let base = unsafe { mapping.as_ptr().add(listed.offset as usize) };
        let known = Known {
            window,
            key: key.key,
            region: listed.region,
            base,
            len: listed.len,
            access: listed.access,
        };
        if self.known.len() <= slot {
            self.known.resize(slot + 1, None);
        }
        self.known[slot] = Some(known);
        // SAFETY: `offset` is within the window.
        Ok(Place::Mapped(unsafe { base.add(offset as usize) }))
    }

    fn mapping_of(&self, window: WindowId) -> Option<Arc<Memory>> {
        let known = self.known.get(window.slot as usize)?.as_ref()?;
        self.mappings.get(&known.region).cloned()
    }

    /// Checks that a window may be mapped as a whole.
    pub(super) fn may_map(&self, remote: &Remote) -> Result<(), Reason> {
        let listed = self.control.look_up(remote.window, remote.key.key)?;
        allowed(listed.access, listed.len, Access::MAP, 0, 0)
    }

    /// Makes an operation wait for a mapping. Returns the token of the request to send, or `None`
    /// if one for the same window is under way.
    pub(super) fn wait(&mut self, op: OpId, wish: Wish) -> Option<u64> {
        if let Wish::Transfer(transfer) = &wish {
            let same = |other: &&Waiting| {
                let asked = other.wish.remote();
                matches!(other.wish, Wish::Transfer(_))
                    && (asked.window, asked.key) == (transfer.remote.window, transfer.remote.key)
            };
            if let Some(token) = self.waiting.iter().rev().find(same).map(|other| other.token) {
                self.waiting.push(Waiting { token, op, wish });
                return None;
            }
        }
        self.tokens += 1;
        self.waiting.push(Waiting { token: self.tokens, op, wish });
        Some(self.tokens)
    }

    /// Takes the operations that waited for the answer with this token.
    pub(super) fn answered(&mut self, token: u64) -> Vec<Waiting> {
        let (mut answered, waiting): (Vec<_>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.token == token);
        self.waiting = waiting;
        answered.sort_by_key(|waiting| waiting.wish.lane());
        answered
    }

    /// Maps a region that the peer has sent for `remote`.
    pub(super) fn map(
        &self,
        remote: &Remote,
        region: RegionId,
        len: u64,
        memfd: OwnedFd,
    ) -> Result<(Memory, Listed), Reason> {
        let listed = self.control.look_up(remote.window, remote.key.key)?;
        let mad = |what: String| {
            tracing::warn!(engine = %self.engine, "a region cannot be mapped: {what}");
            Reason::Failed
        };
        if listed.region != region || !lies_in(&listed, len as usize) {
            return Err(mad(format!("{region:?} of {len} bytes was sent for {listed:?}")));
        }
        let access = if listed.access.allows(Access::WRITE) {
            memory::Access::ReadWrite
        } else {
            memory::Access::ReadOnly
        };
        let memory =
            Memory::map(memfd, len as usize, access).map_err(|refused| mad(refused.to_string()))?;
        Ok((memory, listed))
    }

    /// Keeps a mapping for the transfers to come.
    pub(super) fn keep(&mut self, region: RegionId, mapping: Memory) {
        self.forget(region);
        self.mappings.insert(region, Arc::new(mapping));
    }

    /// Unmaps a region once no transfer uses it.
    pub(super) fn forget(&mut self, region: RegionId) {
        for known in &mut self.known {
            if known.is_some_and(|known| known.region == region) {
                *known = None;
            }
        }
        self.mappings.remove(&region);
    }
}

/// Whether a plan has more pieces than are copied at once.
fn many(plan: &Plan) -> bool {
    plan.local().pieces() + plan.remote().pieces() > SMALL_PIECES_MAX
}

/// Whether a window grants what a transfer needs, where it needs it.
#[inline]
fn allowed(
    granted: Access,
    window_len: u64,
    needed: Access,
    offset: u64,
    len: u64,
) -> Result<(), Reason> {
    if !granted.allows(needed) {
        return Err(Reason::Denied);
    }
    match offset.checked_add(len) {
        Some(end) if end <= window_len => Ok(()),
        _ => Err(Reason::OutOfBounds),
    }
}

/// Whether a window lies in a region of `len` bytes, as an honest owner's does.
fn lies_in(listed: &Listed, len: usize) -> bool {
    listed.offset.checked_add(listed.len).is_some_and(|end| end <= len as u64)
}
