//! One descriptor for all there is to wait for: an `epoll(7)` set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use crate::fabric::PeerId;
use crate::fabric::alarm::Alarm;

const EVENTS_PER_LOOK: usize = 64;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Our doorbell was rung.
    Doorbell,
    /// The alarm went off.
    Alarm,
    /// Somebody calls.
    Caller,
    /// The socket of a connection.
    Socket(PeerId),
    /// The process at its other end has died.
    Death(PeerId),
}

impl Ready {
    fn pack(self) -> EventData {
        EventData::new_u64(match self {
            Self::Doorbell => 0,
            Self::Alarm => 1,
            Self::Caller => 2,
            Self::Socket(peer) => u64::from(peer.0) << 2 | 3 | 1 << 40,
            Self::Death(peer) => u64::from(peer.0) << 2 | 3 | 1 << 41,
        })
    }

    fn unpack(data: EventData) -> Self {
        let data = data.u64();
        let peer = PeerId((data >> 2) as u32);
        match data & 3 {
            0 => Self::Doorbell,
            1 => Self::Alarm,
            2 => Self::Caller,
            _ if data & 1 << 40 != 0 => Self::Socket(peer),
            _ => Self::Death(peer),
        }
    }
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
        watch.add(&watch.alarm, Ready::Alarm)?;
        Ok(watch)
    }

    /// Watches a descriptor until it is closed.
    pub(super) fn add(&self, descriptor: impl AsFd, ready: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, ready.pack(), EventFlags::IN)?)
    }

    /// Stops watching a descriptor that stays open.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Watches a socket for room to send, too, or not any more.
    pub(super) fn watch_room(&self, socket: impl AsFd, peer: PeerId, room: bool) {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, room);
        let _ = epoll::modify(&self.epoll, socket, Ready::Socket(peer).pack(), flags);
    }

    /// What is ready now.
    pub(super) fn look(&self) -> Vec<Ready> {
        let mut events =
            [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS_PER_LOOK];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted look finds the same the next time.
        let found = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or(0);
        events[..found].iter().map(|event| Ready::unpack(event.data)).collect()
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
