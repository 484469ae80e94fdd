//! Packets at their target: checked, landed, or gone.

use super::link::Way;
use super::log::Happened;
use super::operation::{Operation, Task};
use super::port::{Inbox, PortState};
use super::state::{Happening, State};
use crate::fabric::{self, Event, Grant, Local, PeerId, Posted, Remote, Work};
use crate::immediate::Immediate;
use crate::memory::{self, Memory};
use crate::outcome::Reason;
use crate::pages::Piece;
use crate::sabotage::{self, Defect};
use crate::window::{Access, WindowId};

impl State {
    /// A packet reaches its target.
    pub(super) fn land(&mut self, serial: u64, packet: u32) {
        let Some(operation) = self.operations.get(&serial) else { return };
        let (from, link, end) = (operation.port, operation.link, operation.end);
        let to = self.links[link].ends[1 - end].port;
        let numbers = (serial, u64::from(packet));
        if operation.resolved & 1 << packet != 0 {
            return self.log(to, Happened::Duplicate, numbers.0, numbers.1);
        }
        let unsent = operation.sent_at(packet) > operation.stops_at;
        let gone = self.links[link].broken || !self.ports[to].is_alive();
        let cut = self.is_cut(&self.ports[from].address, &self.ports[to].address);
        let cancelled = operation.stops_at <= self.now;
        if gone || unsent || operation.verdict.is_some() || (cut && cancelled) {
            self.log(to, Happened::Vanished, numbers.0, numbers.1);
            return self.vanish(serial, packet);
        }
        if cut || self.chance(self.config.faults.drop) {
            self.log(to, Happened::Dropped, numbers.0, numbers.1);
            let span = self.config.resend_after + self.latency();
            return self.after(span, Happening::Land { serial, packet });
        }
        if self.chance(self.config.faults.duplicate) {
            let span = self.latency();
            self.after(span, Happening::Land { serial, packet });
        }
        self.take(serial, packet, to);
    }

    /// A packet is lost for good.
    fn vanish(&mut self, serial: u64, packet: u32) {
        let operation = &self.operations[&serial];
        let (link, end) = (operation.link, operation.end);
        if matches!(operation.task, Task::Send { .. }) {
            self.mark(link, end, serial, Way::Withdrawn);
            self.resolve(serial, packet);
            self.deliver_in_order(link, end);
        } else {
            self.lose(serial, packet);
        }
    }

    /// A packet is at its target and unheard of there.
    fn take(&mut self, serial: u64, packet: u32, to: usize) {
        let operation = &self.operations[&serial];
        let (link, end) = (operation.link, operation.end);
        // Whoever hears from a peer knows that the connection is up.
        self.up(link, 1 - end);
        let operation = self.operations.get_mut(&serial).expect("still there");
        let Some((remote, reach, access)) = operation.task.access() else {
            return match operation.task {
                Task::Signal => self.take_signal(serial, packet, to),
                _ => {
                    operation.resolved |= 1 << packet;
                    self.mark(link, end, serial, Way::Arrived);
                    self.deliver_in_order(link, end);
                }
            };
        };
        let reading = matches!(operation.task, Task::Read(_));
        if reading && packet + 1 == operation.packets && operation.arrived + 1 == operation.packets
        {
            // All of a read has arrived but its immediate, or it is the last packet of one without.
            if let Some(immediate) = operation.immediate {
                operation.arrived += 1;
                operation.moved = true;
                self.announce(to, None, immediate);
                return self.resolve(serial, packet);
            }
        }
        let granted = self.ports[to].windows.get(remote.window.slot);
        // The whole request is checked at each packet, as an RDMA request carries its whole length.
        let verdict = granted.ok_or(Reason::Forged).and_then(|it| it.check(&remote, reach, access));
        if let Err(reason) = verdict {
            self.log(to, Happened::Refused, serial, reason as u64);
            let operation = self.operations.get_mut(&serial).expect("still there");
            operation.verdict = Some(reason);
            return self.lose(serial, packet);
        }
        if access == Access::MAP {
            return self.take_map(serial, packet, to, &remote);
        }
        if reading {
            self.copy(serial, packet, to);
            return self.read(serial, packet);
        }
        let operation = self.operations.get_mut(&serial).expect("still there");
        operation.resolved |= 1 << packet;
        operation.landing += 1;
        let overtakes = operation.overtakes || sabotage::is(Defect::EarlyImmediate);
        let overtaking = overtakes && !operation.announced;
        let immediate = operation.immediate;
        if overtaking {
            operation.announced = true;
        }
        self.log(to, Happened::Landing, serial, packet.into());
        if overtaking && let Some(immediate) = immediate {
            self.announce(to, None, immediate);
        }
        self.landing_begins(to, remote.window);
        let range = self.config.landing.clone();
        let span = self.span(&range);
        let window = remote.window;
        self.after(span, Happening::Landed { serial, packet, port: to, window });
    }

    /// The fate of a packet that will not arrive. A read's packet for the immediate is then never
    /// sent.
    fn lose(&mut self, serial: u64, packet: u32) {
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        let last = operation.packets - 1;
        if operation.tells() && packet != last && operation.resolved & 1 << last == 0 {
            operation.resolved |= 1 << last;
            operation.outstanding -= 1;
        }
        self.resolve(serial, packet);
    }

    /// A packet of a read is in the initiator's memory; the last one calls for the immediate.
    fn read(&mut self, serial: u64, packet: u32) {
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        operation.arrived += 1;
        operation.moved = true;
        let last = operation.packets - 1;
        let tell = operation.immediate.is_some() && operation.arrived == last;
        let port = operation.port;
        self.log(port, Happened::Landed, serial, packet.into());
        if tell {
            let span = self.latency();
            self.after(span, Happening::Land { serial, packet: last });
        }
        self.resolve(serial, packet);
    }

    /// A packet of a write is in the target's memory.
    pub(super) fn landed(&mut self, serial: u64, packet: u32, port: usize, window: WindowId) {
        if self.operations.contains_key(&serial) {
            if self.ports[port].is_alive() {
                self.log(port, Happened::Landed, serial, packet.into());
                self.copy(serial, packet, port);
            }
            let operation = self.operations.get_mut(&serial).expect("still there");
            operation.landing -= 1;
            operation.arrived += 1;
            operation.moved = true;
            let told = operation.announced || !operation.is_delivered();
            let immediate = operation.immediate.filter(|_| !told);
            if self.links[operation.link].broken {
                operation.verdict.get_or_insert(Reason::PeerGone);
            } else if let Some(immediate) = immediate {
                self.announce(port, None, immediate);
            }
            self.resolve(serial, packet);
        }
        self.landing_ends(port, window);
    }

    /// Copies a packet's bytes between the initiator's memory and a window at `to`.
    fn copy(&self, serial: u64, packet: u32, to: usize) {
        let operation = &self.operations[&serial];
        let (from, bytes) = operation.bytes_of(packet);
        let bytes = bytes.saturating_sub(u64::from(sabotage::is(Defect::LostTail)));
        let (payload, into) = match &operation.task {
            Task::Write(payload) => (payload, true),
            Task::Read(payload) if self.ports[operation.port].is_alive() => (payload, false),
            Task::Read(_) | Task::Send { .. } | Task::Signal | Task::Map { .. } => return,
        };
        let port = &self.ports[to];
        let granted = port.windows.get(payload.remote.window.slot).expect("slots stay");
        let grant = &granted.grant;
        for piece in payload.pieces(packet, from, bytes) {
            move_bytes(into, &payload.local, port, grant, &payload.remote, piece);
        }
    }

    /// A signal is an immediate and nothing else; it asks for no window.
    fn take_signal(&mut self, serial: u64, packet: u32, to: usize) {
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        operation.arrived += 1;
        operation.moved = true;
        if let Some(immediate) = operation.immediate {
            self.announce(to, None, immediate);
        }
        self.resolve(serial, packet);
    }

    /// Puts an immediate into a port's inbox; after a peer's messages when it announces one.
    fn announce(&mut self, to: usize, after: Option<PeerId>, immediate: Immediate) {
        let event = Event::Arrived { immediate };
        self.ports[to].inbox.push_back(match after {
            Some(peer) => Inbox::of(peer, event),
            None => Inbox::free(event),
        });
    }

    fn take_map(&mut self, serial: u64, packet: u32, to: usize, remote: &Remote) {
        let grant = &self.ports[to].windows.get(remote.window.slot).expect("just checked").grant;
        let (offset, len) = (grant.offset, grant.len);
        let access = match grant.access.allows(Access::WRITE) {
            true => memory::Access::ReadWrite,
            false => memory::Access::ReadOnly,
        };
        let memory = self.ports[to].regions.get(grant.region.0).and_then(|memory| {
            let descriptor = memory.fd()?.try_clone_to_owned().ok()?;
            Memory::map(descriptor, memory.len(), access).ok()
        });
        let operation = self.operations.get_mut(&serial).expect("looked up by the caller");
        match memory {
            Some(memory) => {
                operation.mapped = Some((memory, offset, len));
                operation.arrived += 1;
            }
            None => operation.verdict = Some(Reason::Unsupported),
        }
        self.resolve(serial, packet);
    }

    fn mark(&mut self, link: usize, end: usize, serial: u64, way: Way) {
        let messages = &mut self.links[link].ends[end].messages;
        if let Some(message) = messages.iter_mut().find(|message| message.serial == serial) {
            message.state = way;
        }
    }

    /// Hands over the messages of one end whose turn has come.
    fn deliver_in_order(&mut self, link: usize, end: usize) {
        let (to, peer) = {
            let end = &self.links[link].ends[1 - end];
            (end.port, end.peer)
        };
        loop {
            let messages = &mut self.links[link].ends[end].messages;
            match messages.front().map(|message| message.state) {
                None | Some(Way::Travelling) => return,
                Some(Way::Withdrawn) => {
                    messages.pop_front();
                }
                Some(Way::Arrived) => {
                    let serial = messages.pop_front().expect("just seen").serial;
                    let Some(operation) = self.operations.get_mut(&serial) else { continue };
                    let Operation { task: Task::Send { bytes }, immediate, .. } = operation else {
                        continue;
                    };
                    let (bytes, immediate) = (std::mem::take(bytes), *immediate);
                    operation.arrived += 1;
                    operation.moved = true;
                    let event = Event::Message { peer, bytes };
                    self.ports[to].inbox.push_back(Inbox::of(peer, event));
                    if let Some(immediate) = immediate {
                        self.announce(to, Some(peer), immediate);
                    }
                    self.resolve(serial, 0);
                }
            }
        }
    }

    /// An operation of the network on which everything happens at once.
    pub(super) fn post_null(&mut self, link: usize, end: usize, work: Work<'_>) -> Posted {
        let (to, peer) = {
            let end = &self.links[link].ends[1 - end];
            (end.port, end.peer)
        };
        let (local, remote, pages, access, immediate) = match work {
            Work::Write { local, remote, pages, immediate } => {
                (local, remote, pages, Access::WRITE, immediate)
            }
            Work::Read { local, remote, pages, immediate } => {
                (local, remote, pages, Access::READ, immediate)
            }
            Work::Send { bytes, immediate } => {
                let event = Event::Message { peer, bytes: bytes.to_vec() };
                self.ports[to].inbox.push_back(Inbox::of(peer, event));
                if let Some(immediate) = immediate {
                    self.announce(to, Some(peer), immediate);
                }
                return Posted::Done;
            }
            Work::Signal { immediate } => {
                self.announce(to, None, immediate);
                return Posted::Done;
            }
            Work::Map { .. } => return Posted::Refused(Reason::Unsupported),
        };
        let port = &self.ports[to];
        let granted = port.windows.get(remote.window.slot);
        let reach = fabric::reach(&local, pages);
        let granted = granted.ok_or(Reason::Forged);
        let grant = match granted.and_then(|it| it.check(&remote, reach, access).map(|()| it)) {
            Ok(granted) => &granted.grant,
            Err(reason) => return Posted::Refused(reason),
        };
        let into = access == Access::WRITE;
        match pages {
            None => {
                let whole = Piece { local: 0, remote: 0, len: local.len };
                move_bytes(into, &local, port, grant, &remote, whole);
            }
            Some(plan) => {
                for piece in plan.pieces(u64::MAX) {
                    move_bytes(into, &local, port, grant, &remote, piece);
                }
            }
        }
        if let Some(immediate) = immediate {
            self.announce(to, None, immediate);
        }
        Posted::Done
    }
}

/// Moves a piece into a window of `port` when `into`, else out of it.
fn move_bytes(
    into: bool,
    local: &Local,
    port: &PortState,
    grant: &Grant,
    remote: &Remote,
    piece: Piece,
) {
    let Piece { local: ours, remote: theirs, len } = piece;
    let Some(memory) = port.regions.get(grant.region.0) else { return };
    let at = grant.offset + remote.offset + theirs;
    assert!(at + len <= memory.len() as u64, "checked as it landed");
    assert!(ours + len <= local.len, "checked when it was posted");
    // SAFETY: both ranges lie in memories that are kept by the state (`regions`, `Payload`): the
    // two assertions. That the peer's lies in the window was checked as the packet landed. The
    // ranges may overlap when an engine writes to itself, hence `ptr::copy`. Applications that
    // look at bytes under way race, as with any NIC.
    unsafe {
        let (theirs, ours) = (memory.as_ptr().add(at as usize), local.ptr.add(ours as usize));
        let (src, dst) = if into { (ours, theirs) } else { (theirs, ours) };
        std::ptr::copy(src, dst, len as usize);
    }
}
