//! A peer: the paths to it, what is under way there, and which of its windows are open.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::device::{Keys, Post, Room};
use super::exposing::Exposed;
use super::hub::Hub;
use super::mail::Outbox;
use super::op::{Batch, Cut, Flight, Kind, Load, News, Op};
use super::opening::Opened;
use super::path::{Path, Probe, State};
use crate::address::EngineId;
use crate::fabric::recent::Recent;
use crate::fabric::{self, Event, OpId, PeerId, Posted, Status, Work};
use crate::lane::Lane;
use crate::outcome::Reason;
use crate::pages::Plan;
use crate::slots::{At, Slots};
use crate::time::Time;
use crate::window::WindowId;

/// Which operation.
pub(super) type OpRef = At;

/// A peer that is connected.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: PeerId,
    pub(super) engine: EngineId,
    /// Whether this side dialled: that one makes the paths.
    pub(super) dialled: bool,
    /// The last hail.
    pub(super) join: u32,
    pub(super) paths: Vec<Path>,
    /// Until when payload waits for the first paths; `None` once it is known which there are.
    pub(super) pending: Option<Time>,
    /// Whether it was said that payload goes through the streams.
    pub(super) fallen: bool,
    /// Whether it was said that memory of a device cannot.
    pub(super) stranded: bool,
    pub(super) ops: Slots<Op>,
    /// What has something to post, by lane.
    pub(super) queues: [VecDeque<OpRef>; 2],
    /// What waits for room in the streams.
    pub(super) spill: VecDeque<OpRef>,
    /// Messages to it.
    pub(super) outbox: Outbox,
    /// The peer's windows.
    pub(super) opened: Recent<WindowId, Opened>,
    pub(super) asks_ever: u32,
    /// Our windows, as this peer uses them.
    pub(super) exposed: HashMap<WindowId, Exposed>,
    /// Whether a path that is up waits to be measured.
    pub(super) probes_due: bool,
    /// Whether it is among those with something to post.
    pub(super) eager: bool,
}

/// Why an operation is there.
pub(super) const THERE: &str = "it has not ended";

/// What became of an attempt to post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// Something was posted.
    Yes,
    /// There is no room.
    Full,
    /// No path leads to the window.
    Nowhere,
}

impl Link {
    pub(super) fn new(id: PeerId, engine: EngineId, dialled: bool, pending: Time) -> Self {
        Self {
            id,
            engine,
            dialled,
            join: 0,
            paths: Vec::new(),
            pending: Some(pending),
            fallen: false,
            stranded: false,
            ops: Slots::default(),
            queues: Default::default(),
            spill: VecDeque::new(),
            outbox: Outbox::default(),
            opened: Recent::default(),
            asks_ever: 0,
            exposed: HashMap::new(),
            probes_due: false,
            eager: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.paths.iter().any(|path| path.up().is_some())
    }

    /// Whether payload takes the paths: there are some, or it is worth to wait for them.
    pub(super) fn has_ways(&self) -> bool {
        let live = |path: &Path| matches!(path.state, State::Up(_) | State::Shutting);
        self.pending.is_some() || self.paths.iter().any(live)
    }

    #[inline]
    pub(super) fn op(&mut self, at: OpRef) -> Option<&mut Op> {
        self.ops.get_mut(at)
    }

    // ---- posting -----------------------------------------------------------------------------

    /// Whether an operation waits for the peer's answer about its window.
    pub(super) fn is_waiting(&self, at: OpRef) -> bool {
        self.opened.values().any(|opened| opened.waiting.contains(&at))
    }

    /// An operation whose window is open, or that needs none, is to be posted.
    pub(super) fn begin(&mut self, at: OpRef) -> Result<(), Reason> {
        let op = self.ops.get_mut(at).expect(THERE);
        if op.kind != Kind::Signal {
            let opened = self.opened.get_mut(op.remote.window).ok_or(Reason::Stale)?;
            let reach = fabric::reach(&op.local, op.plan.as_ref());
            let reach = if op.total == 0 { 0 } else { reach };
            opened.admit(op.remote.key.key, op.kind.access(), op.remote.offset, reach)?;
            opened.under_way += u32::from(!std::mem::replace(&mut op.counted, true));
        }
        self.queue(at);
        Ok(())
    }

    /// Puts an operation into its queue, where it is not there yet.
    pub(super) fn queue(&mut self, at: OpRef) {
        let Some(op) = self.op(at) else { return };
        if !std::mem::replace(&mut op.queued, true) {
            let lane = op.lane.index();
            self.queues[lane].push_back(at);
        }
    }

    /// Posts what there is room for, the urgent first.
    pub(super) fn pump(&mut self, hub: &mut Hub) {
        for lane in Lane::ALL {
            while let Some(&at) = self.queues[lane.index()].front() {
                if let Some(op) = self.op(at)
                    && op.is_due()
                {
                    match self.give(hub, at) {
                        Given::Yes => continue,
                        Given::Full => break,
                        Given::Nowhere => self.look_elsewhere(hub, at),
                    }
                } else if let Some(op) = self.op(at)
                    && op.is_over()
                {
                    // Nothing was to be moved and nothing announced.
                    self.finish(hub, at);
                }
                self.queues[lane.index()].pop_front();
                if let Some(op) = self.op(at) {
                    op.queued = false;
                }
            }
        }
    }

    /// Whether something waits to be posted.
    pub(super) fn has_queued(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
            || !self.spill.is_empty()
            || self.has_mail()
            || self.probes_due
    }

    /// Posts one batch of an operation on the path that will be through with it first.
    pub(super) fn give(&mut self, hub: &mut Hub, at: OpRef) -> Given {
        let op = self.ops.get_mut(at).expect(THERE);
        let payload = op.has_more();
        let opened = payload.then(|| self.opened.get(op.remote.window)).flatten();
        let lane = op.lane;
        let most = op.total.saturating_sub(op.landed).min(hub.settings.stripe_bytes);
        let mut best: Option<(f64, u8, Room, Option<Keys>)> = None;
        let (mut leads, mut missing) = (false, None);
        for (number, path) in self.paths.iter().enumerate() {
            let Some(channel) = path.up() else { continue };
            let keys = opened.and_then(|it| it.keys(number, path.generation));
            if payload && keys.is_none() {
                missing = Some(op.remote.window);
                continue;
            }
            leads = true;
            let busy = path.under_way[lane.index()];
            if busy > 0 && busy + most > hub.settings.flight_bytes_max {
                continue;
            }
            let room = hub.rails[usize::from(path.rail)].device.room(channel, lane);
            if room.pieces == 0 || (!payload && room.immediates == 0) {
                continue;
            }
            // Where there is no other, it does not matter.
            let when = if self.paths.len() > 1 { path.estimate(most, hub.now) } else { 0.0 };
            if best.is_none_or(|(best, ..)| when < best) {
                best = Some((when, number as u8, room, keys));
            }
        }
        let Some((_, number, room, keys)) = best else {
            return if leads { Given::Full } else { Given::Nowhere };
        };
        let path = &mut self.paths[usize::from(number)];
        let channel = path.up().expect("it was chosen among those that are up");
        let traits = hub.rails[usize::from(path.rail)].traits;
        let cut = Cut {
            pieces: room.pieces,
            bytes: hub.settings.stripe_bytes,
            piece_bytes: traits.piece_bytes_max,
        };
        let before = op.flying;
        let batch = op.cut(cut, &mut hub.pieces);
        op.spread |= op.path.is_some_and(|other| other != number);
        op.path = Some(number);
        let last = !op.has_more() && op.news == News::Due && room.immediates > 0;
        let behind = match (op.kind, traits.ordered) {
            (Kind::Read, _) => before == 0 && batch.bytes == 0,
            (_, true) => !op.spread || before == 0,
            (_, false) => before == 0 && hub.pieces.len() <= 1,
        };
        let immediate = op.immediate.filter(|_| last && behind);
        let mut announces = None;
        if immediate.is_some() {
            op.news = News::Posted;
            let count = &mut path.announced[lane.index()];
            announces = Some(*count);
            *count += 1;
        }
        op.flying += 1;
        path.under_way[lane.index()] += batch.bytes;
        let token = hub.launch(self.id, Load::Op(at, announces), number, lane, batch);
        let post = Post {
            channel,
            lane,
            token,
            region: op.local.region,
            local: op.local.ptr,
            remote: keys.map_or(0, |it| it.base.wrapping_add(op.remote.offset)),
            key: keys.map_or(0, |it| it.keys[lane.index()]),
            pieces: &hub.pieces,
        };
        let rail = &mut hub.rails[usize::from(path.rail)];
        match op.kind {
            Kind::Read if batch.bytes > 0 => rail.device.read(&post),
            _ => rail.device.write(&post, immediate),
        }
        if let Some(window) = missing {
            self.refresh(hub, window);
        }
        Given::Yes
    }

    /// A batch is through.
    pub(super) fn done(&mut self, hub: &mut Hub, flight: &Flight) {
        let Flight { path, lane, batch, posted, .. } = *flight;
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.under_way[lane.index()] -= batch.bytes;
            path.done(batch.bytes, posted, hub.now);
        }
        match flight.load {
            Load::Op(op, announces) => self.landed(hub, op, batch, announces),
            Load::Message(number) => self.message_done(number),
            Load::Probe => {
                let path = &mut self.paths[usize::from(path)];
                path.round_trip = Some(hub.now.since(posted));
                if path.probe == Probe::Flying {
                    path.probe = Probe::None;
                }
                hub.reports.push(Event::Path { peer: self.id });
                self.proved(hub, flight.path);
            }
        }
    }

    /// A batch is where it belongs.
    pub(super) fn landed(
        &mut self,
        hub: &mut Hub,
        at: OpRef,
        batch: Batch,
        announces: Option<u64>,
    ) {
        let Some(op) = self.op(at) else { return };
        op.flying -= 1;
        op.landed += batch.bytes;
        if announces.is_some() {
            op.news = News::None;
        }
        self.settle(hub, at);
    }

    /// Ends an operation that is over, and queues one that has something to post again.
    pub(super) fn settle(&mut self, hub: &mut Hub, at: OpRef) {
        let Some(op) = self.op(at) else { return };
        if op.is_over() {
            self.finish(hub, at);
        } else if op.is_due() {
            self.queue(at);
        }
    }

    /// Reports the end of an operation and forgets it.
    pub(super) fn finish(&mut self, hub: &mut Hub, at: OpRef) {
        let Some(op) = self.op(at) else { return };
        let whole = !op.has_more() && op.flying == 0 && op.news == News::None;
        let status = match op.cancel {
            Some(reason) if !whole && op.is_untouched() => Status::Refused(reason),
            Some(reason) if !whole => Status::Stopped(reason),
            _ => Status::Done,
        };
        let op = op.id;
        self.forget(hub, at);
        hub.reports.push(Event::Completed { op, status });
    }

    /// Takes an operation out.
    pub(super) fn forget(&mut self, hub: &mut Hub, at: OpRef) {
        let Some(op) = self.ops.get_mut(at) else { return };
        let (counted, kind, window) = (op.counted, op.kind, op.remote.window);
        op.plan = None;
        op.again.clear();
        self.ops.free(at);
        if counted {
            self.leave_window(hub, window);
        } else if kind != Kind::Signal {
            self.unwait(at);
        }
    }

    /// Asks for an early end; whether the operation is one of these.
    pub(super) fn cancel(&mut self, hub: &mut Hub, id: OpId, reason: Reason) -> bool {
        let found = self.ops.iter().find(|(_, op)| op.id == id);
        let Some((at, _)) = found else { return false };
        self.stop(hub, at, reason);
        true
    }

    /// Ends an operation as soon as nothing of it is under way.
    pub(super) fn stop(&mut self, hub: &mut Hub, at: OpRef, reason: Reason) {
        let Some(op) = self.op(at) else { return };
        op.cancel.get_or_insert(reason);
        self.settle(hub, at);
    }

    // ---- the streams -------------------------------------------------------------------------

    /// Gives work to the streams, for want of paths.
    pub(super) fn fall_back(
        &mut self,
        hub: &mut Hub,
        id: OpId,
        lane: Lane,
        work: Work<'_>,
    ) -> Posted {
        if let Work::Write { local, pages, .. } | Work::Read { local, pages, .. } = work
            && fabric::bytes(&local, pages) > 0
            && !hub.control.windows().is_host(local.region)
        {
            if !std::mem::replace(&mut self.stranded, true) {
                tracing::warn!(
                    engine = ?self.engine,
                    "no rail leads there, and TCP does not reach the memory of a device: transfers of it are \
                     refused; the log says what became of each rail, and `tranship doctor` what there is"
                );
            }
            return Posted::Refused(Reason::Unsupported);
        }
        if !std::mem::replace(&mut self.fallen, true) {
            hub.reports.push(Event::Fallback { peer: self.id });
            tracing::warn!(
                engine = ?self.engine,
                "fallback: no rail leads to the peer, payload goes over TCP; the log says what \
                 became of each rail, and `tranship doctor` what there is"
            );
        }
        hub.control.streams().post(id, self.id, lane, work)
    }

    /// Gives an operation, of which nothing is under way, to the streams, from its start: writing the
    /// same bytes again changes nothing.
    pub(super) fn fall(&mut self, hub: &mut Hub, at: OpRef) {
        let Some(op) = self.op(at) else { return };
        debug_assert_eq!(op.flying, 0, "what is under way may still land");
        let moved = !op.is_untouched();
        let Op { id, lane, local, remote, plan, immediate, kind, news, landed, total, .. } = op;
        let (id, lane, local, remote) = (*id, *lane, *local, *remote);
        let (immediate, plan) = (immediate.filter(|_| *news != News::None), plan.clone());
        let pages: Option<&Plan> = plan.as_ref();
        let work = match (*kind, immediate) {
            (Kind::Write, _) => Work::Write { local, remote, pages, immediate },
            (Kind::Signal, Some(immediate)) => Work::Signal { immediate },
            (Kind::Read, Some(immediate)) if *landed >= *total => Work::Signal { immediate },
            (Kind::Read | Kind::Signal, _) => Work::Read { local, remote, pages, immediate },
        };
        match self.fall_back(hub, id, lane, work) {
            Posted::Busy => self.spill.push_back(at),
            // The streams report its end.
            Posted::Pending => {
                if moved {
                    hub.moved.insert(id);
                }
                self.forget(hub, at);
            }
            Posted::Done => {
                self.forget(hub, at);
                hub.reports.push(Event::Completed { op: id, status: Status::Done });
            }
            Posted::Refused(reason) => {
                let op = self.op(at).expect("it was there before");
                op.cancel = Some(reason);
                op.news = if op.immediate.is_some() { News::Due } else { op.news };
                self.finish(hub, at);
            }
        }
    }

    /// Tries what waits for room in the streams again.
    pub(super) fn drain_spill(&mut self, hub: &mut Hub) {
        for _ in 0..self.spill.len() {
            let Some(at) = self.spill.pop_front() else { break };
            self.fall(hub, at);
        }
    }

    /// There is no path and none is to be waited for: all that has nothing under way takes the
    /// streams.
    pub(super) fn fall_all(&mut self, hub: &mut Hub) {
        self.queues.iter_mut().for_each(VecDeque::clear);
        let all: Vec<OpRef> = self.ops.iter().map(|(at, _)| at).collect();
        for at in all {
            let Some(op) = self.op(at) else { continue };
            op.queued = false;
            if op.flying == 0 && !self.spill.contains(&at) {
                self.unwait(at);
                self.fall(hub, at);
            }
        }
    }
}
