//! Writes and reads of a schedule: which bytes go where, over which way, alone or together.

use tranship_transport::{
    Access, Address, Descriptor, Engine, Plan, RemoteSlice, RemoteWindow, Target,
};

use crate::dice::Dice;
use crate::flight::{Change, Prepared};
use crate::pieces::pieces;
use crate::program::{Batch, Move, Route};
use crate::world::{Offer, Remote, SHELF_BYTES, World};

/// A move that is not started yet.
struct Ready {
    write: Prepared,
    /// Where its bytes are on this side, and where they go to.
    part: (std::ops::Range<u64>, RemoteSlice),
}

impl World {
    /// Starts a write or a read.
    pub(crate) fn transfer(&mut self, it: &Move) {
        let Some((life, engine)) = self.living(it.from) else { return };
        let Some(ready) = self.prepare(life, &engine, it) else { return };
        self.launch(life, ready.write, it.deadline);
    }

    /// Starts several together.
    pub(crate) fn batch(&mut self, it: &Batch) {
        let Some((life, engine)) = self.living(it.from) else { return };
        let ready: Vec<_> =
            it.moves.iter().filter_map(|one| self.prepare(life, &engine, one)).collect();
        let slot = |count: usize| self.counts[count].slot;
        let target = |Ready { write, part: (from, to) }: &Ready| Target {
            from: from.clone(),
            to: to.clone(),
            slot: write.count.map(slot),
        };
        let group: Vec<_> = ready.iter().map(target).collect();
        let mut batch = if it.scatters {
            let shelf = self.yards[self.lives[life].shelf].region.as_ref().expect("it lives");
            let source = shelf.slice(0..SHELF_BYTES).expect("not longer");
            engine.scatter(&source, &group).expect("parts of the source")
        } else {
            engine.batch()
        };
        let mut what = Vec::new();
        for Ready { write: Prepared { submission, count, futile, change }, .. } in ready {
            if !it.scatters {
                batch.push(match count {
                    Some(count) => submission.immediate(self.counts[count].slot),
                    None => submission,
                });
            }
            what.push((count, futile, change));
        }
        assert_eq!(batch.len(), what.len());
        let started = batch.lane(it.lane).deadline(it.deadline).submit();
        self.launch_all(life, started, what, it.deadline);
    }

    /// The window a move goes to: mostly one that is open, now and then one closed long ago.
    fn window_for(&self, it: &Move) -> Option<usize> {
        let wanted = if it.reads { Access::READ } else { Access::WRITE };
        let fit = |at: &usize| {
            let offer = &self.offers[*at];
            let open = offer.open || it.window.is_multiple_of(7);
            offer.access == wanted && open && !self.is_word(*at)
        };
        let offers: Vec<_> = (0..self.offers.len()).filter(fit).collect();
        offers.get(it.window as usize / 7 % offers.len().max(1)).copied()
    }

    /// A window as an engine uses it, if both have a fabric in common.
    pub(crate) fn open(&mut self, life: usize, offer: usize, route: Route) -> Option<RemoteWindow> {
        let known = |it: &&Remote| it.offer == offer;
        if let Route::Known = route
            && let Some(remote) = self.lives[life].remotes.iter().rfind(known)
        {
            return Some(remote.window.clone());
        }
        let mut descriptor = self.offers[offer].descriptor.clone();
        // What reaches out of a window is for its owner to refuse.
        descriptor.len = u64::MAX;
        let instead = match route {
            Route::Known | Route::Straight => None,
            Route::Nowhere => Some(Address::new(descriptor.routes[0].address.kind, "nowhere")),
            Route::Stranger(pick) => self.addresses(pick).first().cloned(),
        };
        // The last way is never bent: where there is one fabric, windows stay in reach.
        if let Some(address) = instead
            && descriptor.routes.len() > 1
            && descriptor.routes[0].address.kind == address.kind
        {
            descriptor.routes[0].address = address;
        }
        self.open_at(life, offer, &descriptor)
    }

    /// The same with a descriptor of one's own.
    pub(crate) fn open_at(
        &mut self,
        life: usize,
        offer: usize,
        descriptor: &Descriptor,
    ) -> Option<RemoteWindow> {
        let engine = self.lives[life].engine.as_ref().expect("only the living open windows");
        let speaks = |to: &Address| engine.addresses().iter().any(|own| own.kind == to.kind);
        if !descriptor.routes.iter().any(|route| speaks(&route.address)) {
            assert!(engine.open(descriptor).is_err(), "no fabric in common");
            return None;
        }
        let window = engine.open(descriptor).expect("a fabric in common");
        let first = window.address().clone();
        let remote = Remote { offer, window: window.clone(), first };
        self.lives[life].remotes.push(remote);
        Some(window)
    }

    /// How many windows that a life opened are reached over another way than at first.
    pub(crate) fn detours(&self, life: usize) -> u64 {
        let bent = |it: &&Remote| *it.window.address() != it.first;
        self.lives[life].remotes.iter().filter(bent).count() as u64
    }

    fn prepare(&mut self, life: usize, engine: &Engine, it: &Move) -> Option<Ready> {
        let offer = self.window_for(it)?;
        let Offer { yard: theirs, ref range, open, .. } = self.offers[offer];
        let (start, room) = (range.start, range.end - range.start);
        let len = u64::from(it.bytes).min(room);
        // What reaches out of the window has its last bytes just there.
        let at = if it.beyond > 0 { room - len } else { self.dice.below(room - len + 1) };
        let reach = len + u64::from(it.beyond);
        let remote = self.open(life, offer, it.route)?;
        let remote = remote.slice(at..at + reach).expect("the descriptor says so");
        let (ours, end) = match it.reads {
            true => {
                let yard = self.lives[life].yards[self.dice.below(2) as usize];
                (yard, crate::world::REGION_BYTES)
            }
            false => (self.lives[life].shelf, SHELF_BYTES),
        };
        let local_at = self.dice.below(end - reach + 1);
        let part = local_at..local_at + reach;
        let region = self.yards[ours].region.as_ref()?;
        let local = region.slice(part.clone()).expect("in the region");

        // Which bytes of each side, in order: worked out here, not by the plan that is under test.
        let whole = || (0..reach).collect();
        let (here, there, plan) = match it.pieces {
            None => (whole(), whole(), None),
            Some(seed) => {
                let (here, there) = pieces(&mut Dice::new(seed), reach, it.reads);
                let plan = Plan::new(here.pages, there.pages).expect("equally many");
                (here.offsets, there.offsets, Some(plan))
            }
        };
        let submission = match (&plan, it.reads) {
            (None, false) => engine.write(local, remote.clone()),
            (None, true) => engine.read(remote.clone(), local),
            (Some(plan), false) => engine.write_paged(&local, &remote, plan),
            (Some(plan), true) => engine.read_paged(&remote, &local, plan),
        };
        let furthest = there.iter().max().map_or(0, |last| last + 1);
        let futile = !open || at + furthest > room;
        // Slots of counters that are gone stay in use, too.
        let owner = self.yards[theirs].life;
        let count = it.count.and_then(|pick| self.slot_at(owner, pick));
        let change = (!futile).then(|| {
            let here = here.iter().map(|offset| local_at + offset);
            let there = there.iter().map(|offset| start + at + offset);
            let (source, yard, pairs): (_, _, Vec<_>) = match it.reads {
                true => (theirs, ours, there.zip(here).collect()),
                false => (ours, theirs, here.zip(there).collect()),
            };
            let bytes = self.yards[source].shadow.bytes();
            let value = |(from, to): (u64, u64)| (to as u16, bytes[from as usize]);
            let bytes = pairs.into_iter().map(value).collect();
            Change { yard, offer: (!it.reads).then_some(offer), bytes }
        });
        let submission = submission.lane(it.lane).priority(it.priority).into_owned();
        let write = Prepared { submission, count, futile, change };
        Some(Ready { write, part: (part, remote) })
    }
}
