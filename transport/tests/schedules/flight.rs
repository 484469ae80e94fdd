//! Transfers of a schedule, from submission to the end.

use std::rc::Rc;
use std::time::Duration;

use tranship_transport::{Member, Outcome, Submission, Time, Transfer, Transfers};

use crate::world::World;

/// How long before its deadline the engine itself ends a transfer, at most.
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// A transfer under way or ended.
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) life: usize,
    handle: Handle,
    pub(crate) deadline: Time,
    /// When the engine begins to end it.
    stops: Time,
    /// It was asked to end before that.
    pub(crate) cancelled: bool,
    pub(crate) outcome: Option<Outcome>,
    /// The region it may change, while it may.
    pub(crate) permit: Option<usize>,
    /// The window through which it changes it, when that is a peer's.
    pub(crate) offer: Option<usize>,
    pub(crate) count: Option<usize>,
    /// Nothing of it can have passed: its window was closed or its bounds were wrong.
    pub(crate) futile: bool,
    pub(crate) message: Option<u64>,
    /// The life whose word it writes, and what.
    pub(crate) word: Option<(usize, u64)>,
}

enum Handle {
    Alone(Transfer),
    Together(Rc<Transfers>, usize),
}

/// A transfer that is not submitted yet, and what it may change.
pub(crate) struct Prepared {
    pub(crate) submission: Submission<'static>,
    pub(crate) count: Option<usize>,
    pub(crate) futile: bool,
    pub(crate) change: Option<Change>,
}

/// What a transfer puts where.
pub(crate) struct Change {
    pub(crate) yard: usize,
    /// The window through which, when that is a peer's.
    pub(crate) offer: Option<usize>,
    pub(crate) bytes: Vec<(u16, u8)>,
}

impl Flight {
    pub(crate) fn ended(&self) -> Option<Outcome> {
        match &self.handle {
            Handle::Alone(transfer) => transfer.outcome(),
            Handle::Together(all, at) => all.get(*at).outcome(),
        }
    }

    pub(crate) fn fenced(&self) -> bool {
        match &self.handle {
            Handle::Alone(transfer) => transfer.fenced(),
            Handle::Together(all, at) => all.get(*at).fenced(),
        }
    }

    fn cancel(&self) {
        match &self.handle {
            Handle::Alone(transfer) => transfer.cancel(),
            Handle::Together(all, at) => all.get(*at).cancel(),
        }
    }

    fn is_of(&self, batch: &Rc<Transfers>) -> bool {
        matches!(&self.handle, Handle::Together(all, _) if Rc::ptr_eq(all, batch))
    }
}

impl World {
    /// Starts a transfer.
    pub(crate) fn launch(&mut self, life: usize, it: Prepared, deadline: Duration) -> &mut Flight {
        let Prepared { submission, count, futile, change } = it;
        let submission = match count {
            Some(count) => submission.immediate(self.counts[count].slot),
            None => submission,
        };
        let transfer = submission.deadline(deadline).submit().expect("the queue has room");
        self.note(life, Handle::Alone(transfer), (count, futile, change), deadline)
    }

    /// Takes transfers that started together under watch.
    pub(crate) fn launch_all(
        &mut self,
        life: usize,
        all: Transfers,
        what: Vec<(Option<usize>, bool, Option<Change>)>,
        deadline: Duration,
    ) {
        let all = Rc::new(all);
        assert_eq!(all.iter().len(), what.len(), "one each");
        for (at, what) in what.into_iter().enumerate() {
            self.note(life, Handle::Together(Rc::clone(&all), at), what, deadline);
        }
        self.batches.push((life, all));
    }

    fn note(
        &mut self,
        life: usize,
        handle: Handle,
        (count, futile, change): (Option<usize>, bool, Option<Change>),
        timeout: Duration,
    ) -> &mut Flight {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(count) = count {
            let carried = self.carried(count);
            carried.sent += 1;
            if carried.sent == 1 {
                carried.first = id;
            }
        }
        let (permit, offer) = match change {
            Some(Change { yard, offer, bytes }) => {
                self.yards[yard].shadow.permit(id, bytes);
                (Some(yard), offer)
            }
            None => (None, None),
        };
        let now = self.now();
        self.flights.push(Flight {
            id,
            life,
            handle,
            deadline: now + timeout,
            stops: now + (timeout - (timeout / 8).min(MARGIN_MAX)),
            cancelled: false,
            outcome: None,
            permit,
            offer,
            count,
            futile,
            message: None,
            word: None,
        });
        self.flights.last_mut().expect("just pushed")
    }

    /// Asks that one of the transfers under way end.
    pub(crate) fn cancel(&mut self, pick: u64) {
        let now = self.now();
        let mut flying: Vec<_> =
            self.flights.iter_mut().filter(|flight| flight.outcome.is_none()).collect();
        let among = flying.len().max(1);
        if let Some(flight) = flying.get_mut(pick as usize % among) {
            flight.cancelled |= now < flight.stops;
            flight.cancel();
        }
    }

    /// Asks that all transfers of a batch end.
    pub(crate) fn cancel_batch(&mut self, pick: u64) {
        let now = self.now();
        let Some((_, batch)) = self.batches.get(pick as usize % self.batches.len().max(1)) else {
            return;
        };
        for flight in self.flights.iter_mut().filter(|flight| flight.is_of(batch)) {
            flight.cancelled |= flight.outcome.is_none() && now < flight.stops;
        }
        batch.cancel();
    }

    /// A batch has ended when all of it has, and its pages are free when all of them are.
    pub(crate) fn look_at_batches(&mut self) {
        self.batches.retain(|(_, batch)| {
            let each: Vec<_> = batch.iter().map(Member::outcome).collect();
            assert_eq!(batch.outcomes(), each.into_iter().collect(), "outcomes of a batch");
            assert_eq!(batch.fenced(), batch.iter().all(Member::fenced), "pages of a batch");
            !batch.fenced()
        });
    }
}
