//! One descriptor for all that a fabric waits for: an `epoll(7)` set.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::alarm::Alarm;

const EVENTS_PER_LOOK: usize = 64;

/// What can be ready, as a fabric names it.
pub(super) trait Label: Copy {
    /// The alarm of the set.
    const ALARM: Self;

    /// The word that the kernel keeps for it.
    fn pack(self) -> u64;

    /// What a word stands for that was packed.
    fn unpack(word: u64) -> Self;
}

/// Something ready, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<L> {
    pub(super) ready: L,
    /// Something to receive, or an end.
    pub(super) read: bool,
    /// Room to send, or an end.
    pub(super) write: bool,
}

/// The set, with an alarm clock in it.
#[derive(Debug)]
pub(super) struct Epoll<L> {
    epoll: OwnedFd,
    alarm: Alarm,
    labels: PhantomData<L>,
}

impl<L: Label> Epoll<L> {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let set = Self { epoll, alarm: Alarm::new()?, labels: PhantomData };
        set.add(&set.alarm, L::ALARM, false)?;
        Ok(set)
    }

    fn flags(room: bool) -> EventFlags {
        if room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
    }

    /// Watches a descriptor until it is closed; for room to send, too, if `room`.
    pub(super) fn add(&self, descriptor: impl AsFd, ready: L, room: bool) -> io::Result<()> {
        let data = EventData::new_u64(ready.pack());
        Ok(epoll::add(&self.epoll, descriptor, data, Self::flags(room))?)
    }

    /// Watches a descriptor for something else from now on.
    pub(super) fn change(&self, descriptor: impl AsFd, ready: L, room: bool) {
        let data = EventData::new_u64(ready.pack());
        // The descriptor is in the set, and no memory is needed for it.
        let _ = epoll::modify(&self.epoll, descriptor, data, Self::flags(room));
    }

    /// Stops watching a descriptor that stays open.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// What is ready now, in place of what `sights` held.
    pub(super) fn look(&self, sights: &mut Vec<Sight<L>>) {
        sights.clear();
        let empty = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [empty; EVENTS_PER_LOOK];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted look finds the same the next time.
        let found = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or(0);
        let end = EventFlags::ERR | EventFlags::HUP;
        sights.extend(events[..found].iter().map(|event| {
            // A copy: the event is packed.
            let flags = event.flags;
            Sight {
                ready: L::unpack(event.data.u64()),
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

impl<L> AsFd for Epoll<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
