//! One descriptor for all there is to wait for: an `epoll(7)` set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;

use crate::fabric::PeerId;
use crate::fabric::alarm::Alarm;

/// What is looked at in one look.
pub(super) const EVENTS_PER_LOOK: usize = 64;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// The alarm went off.
    Alarm,
    /// A name was looked up.
    Name,
    /// Somebody calls.
    Caller,
    /// The socket of a handshake.
    Call(u32),
    /// A stream of a connection.
    Stream(PeerId, u8),
}

impl Ready {
    fn pack(self) -> EventData {
        EventData::new_u64(match self {
            Self::Alarm => 0,
            Self::Name => 1,
            Self::Caller => 2,
            Self::Call(id) => 3 | u64::from(id) << 32,
            Self::Stream(peer, stream) => 4 | u64::from(stream) << 8 | u64::from(peer.0) << 32,
        })
    }

    fn unpack(data: u64) -> Self {
        let high = (data >> 32) as u32;
        match data & 0xff {
            0 => Self::Alarm,
            1 => Self::Name,
            2 => Self::Caller,
            3 => Self::Call(high),
            _ => Self::Stream(PeerId(high), (data >> 8) as u8),
        }
    }
}

/// Something ready, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) ready: Ready,
    /// Something to receive, or an end.
    pub(super) read: bool,
    /// Room to send, or an end.
    pub(super) write: bool,
}

/// The set, with an alarm clock in it.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    alarm: Alarm,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let watch = Self { epoll, alarm: Alarm::new()? };
        watch.add(&watch.alarm, Ready::Alarm, false)?;
        Ok(watch)
    }

    fn flags(room: bool) -> EventFlags {
        if room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
    }

    /// Watches a descriptor until it is closed; for room to send, too, if `room`.
    pub(super) fn add(&self, descriptor: impl AsFd, ready: Ready, room: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, ready.pack(), Self::flags(room))?)
    }

    /// Watches a descriptor for something else from now on.
    pub(super) fn change(&self, descriptor: impl AsFd, ready: Ready, room: bool) {
        // The descriptor is in the set, and no memory is needed for it.
        let _ = epoll::modify(&self.epoll, descriptor, ready.pack(), Self::flags(room));
    }

    /// Stops watching a descriptor that stays open.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// What is ready now.
    pub(super) fn look(&self, sights: &mut Vec<Sight>) {
        sights.clear();
        let empty = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [empty; EVENTS_PER_LOOK];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted look finds the same the next time.
        let found = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or(0);
        let end = EventFlags::ERR | EventFlags::HUP;
        sights.extend(events[..found].iter().map(|event| {
            // A copy: the event is packed.
            let flags = event.flags;
            Sight {
                ready: Ready::unpack(event.data.u64()),
                read: flags.intersects(EventFlags::IN | end),
                write: flags.intersects(EventFlags::OUT | end),
            }
        }));
    }

    /// Lets the alarm go off after `span`, or never.
    pub(super) fn set_alarm(&mut self, span: Option<Duration>) {
        self.alarm.set(span);
    }

    /// The alarm went off.
    pub(super) fn alarmed(&mut self) {
        self.alarm.rang();
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
