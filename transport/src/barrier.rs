//! Barriers: nobody goes on before everybody has come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::{Address, EngineId};
use crate::counter::Counter;
use crate::engine::{CountersExhausted, Engine, PeerError};
use crate::immediate::Slot;
use crate::lane::Lane;
use crate::outcome::{Outcome, Reason};
use crate::peer::Peer;
use crate::sabotage::{self, Defect};
use crate::time::Time;
use crate::transfer::Transfer;

/// A meeting of engines: each signals all others and waits to be signalled by all.
///
/// Only a signal that ended as done is known to have arrived. One that was rejected has not, and goes
/// over the next way at once; any other may have, and is sent again by the next call. So a member
/// has counters of its own at each other one, and a signal carries its round in the generation of
/// the slot: one that comes twice says nothing new, and one that comes after its round is over
/// counts for nobody. It is for one engine: whoever else is at the member's address by now is not
/// told. Rounds alternate between two counters: a member can be one round ahead of another, never
/// two, because the round between needs the other's signal. No order of arrivals is assumed.
#[derive(Debug)]
pub struct Barrier {
    engine: Engine,
    invitation: Invitation,
    /// Those of the invitation.
    counters: Vec<[Counter; 2]>,
    members: Vec<Member>,
    round: u64,
}

/// What tells a member from the others.
type Name = (EngineId, Option<Slot>);

#[derive(Debug)]
struct Member {
    name: Name,
    /// The ways to it, the best first.
    ways: Vec<(Peer, Address)>,
    /// The one that its next signal takes: after each that did not lead there, the one behind it.
    way: usize,
    /// The last one that is known to lead there; the best until one is.
    proven: usize,
    slots: Vec<[Slot; 2]>,
    /// It was told of this round.
    told: bool,
}

impl Member {
    /// Takes note of how its signal ended, the `tried`th of a call; whether another way is left to
    /// this call.
    fn ended(&mut self, outcome: Outcome, tried: usize) -> bool {
        self.told = outcome.is_done()
            || sabotage::is(Defect::LostSignal) && matches!(outcome, Outcome::Lost(_));
        if self.told {
            self.announce();
            return false;
        }
        // A way that only had what others left of the time is the first of the next call.
        if tried > 1 && outcome.reason() == Some(Reason::Deadline) {
            return false;
        }
        self.way = (self.way + 1) % self.ways.len();
        // Any other outcome: it may have arrived.
        matches!(outcome, Outcome::Rejected(_)) && tried < self.ways.len()
    }

    /// Says so when a slower way than before turned out to be the one that leads there.
    fn announce(&mut self) {
        let before = std::mem::replace(&mut self.proven, self.way);
        if self.way > before {
            let (from, to) = (&self.ways[before].1, &self.ways[self.way].1);
            tracing::warn!(%from, %to, "fallback: a slower way to a member of a barrier is taken");
        }
    }
}

/// A signal under way.
struct Call {
    /// To which member.
    member: usize,
    /// How many ways this makes.
    tried: usize,
    transfer: Transfer,
}

/// What another engine needs to join a barrier: serialisable, handed over by any channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// Which engine it is.
    pub engine: EngineId,
    /// Where the engine is, best first.
    pub addresses: Vec<Address>,
    /// Its counters for even and odd rounds, a pair for each other member, in the order of their
    /// names: engine, then first slot.
    pub slots: Vec<[Slot; 2]>,
}

impl Invitation {
    fn name(&self) -> Name {
        (self.engine, self.slots.first().map(|pair| pair[0]))
    }
}

impl Barrier {
    /// A barrier of this engine and so many others. Each member makes its own, hands its invitation
    /// to all, and joins the others before the first round.
    ///
    /// # Errors
    /// When the engine has not two counters left for each other member.
    pub fn new(engine: &Engine, others: usize) -> Result<Self, CountersExhausted> {
        let pair = |_| Ok([engine.counter()?, engine.counter()?]);
        let counters: Vec<[Counter; 2]> = (0..others).map(pair).collect::<Result<_, _>>()?;
        let slots = |pair: &[Counter; 2]| [pair[0].slot(), pair[1].slot()];
        let invitation = Invitation {
            engine: engine.id(),
            addresses: engine.addresses().to_vec(),
            slots: counters.iter().map(slots).collect(),
        };
        Ok(Self { engine: engine.clone(), invitation, counters, members: Vec::new(), round: 0 })
    }

    /// What the other members need, the same for all of them.
    #[must_use]
    pub fn invitation(&self) -> Invitation {
        self.invitation.clone()
    }

    /// Adds a member, unless it is one already or this one. All members must have each other before
    /// the first round.
    ///
    /// # Errors
    /// When no fabric of this engine leads there, or the barriers are for groups of other sizes.
    pub fn join(&mut self, invitation: &Invitation) -> Result<(), JoinError> {
        let (others, theirs) = (self.counters.len(), invitation.slots.len());
        if others != theirs {
            return Err(JoinError::Uneven { others, theirs });
        }
        let name = invitation.name();
        if name == self.invitation.name() || self.members.iter().any(|member| member.name == name) {
            return Ok(());
        }
        if self.members.len() == others {
            return Err(JoinError::Full { others });
        }
        let mut ways = Vec::new();
        for own in self.engine.addresses() {
            for there in invitation.addresses.iter().filter(|there| there.kind == own.kind) {
                ways.push((self.engine.peer(there)?, there.clone()));
            }
        }
        if ways.is_empty() {
            ways.push(self.engine.first_peer(&invitation.addresses)?);
        }
        let slots = invitation.slots.clone();
        self.members.push(Member { name, ways, way: 0, proven: 0, slots, told: false });
        Ok(())
    }

    /// How many others have joined.
    #[must_use]
    pub fn others(&self) -> usize {
        self.members.len()
    }

    /// How many members come before `name`, this one and `but` left out.
    fn before(&self, name: Name, but: Name) -> usize {
        self.members.iter().filter(|it| it.name != but && it.name < name).count()
    }

    /// Comes to the barrier and waits, up to `timeout`, until all others have come. Everything they
    /// did before is done; whether their writes have arrived is for counters to say.
    ///
    /// # Errors
    /// When somebody did not join, did not come in time or could not be told over any fabric that
    /// they share. The round is not over: the next call goes on with it, and tells again those that
    /// may not have been told, over the next fabric.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), BarrierError> {
        let until = self.engine.now() + timeout;
        let unreached = if self.members.len() == self.counters.len() {
            self.tell_all(until)
        } else {
            // Who has which counters is known once all have joined.
            Vec::new()
        };
        let tolerated = usize::from(sabotage::is(Defect::EarlyBarrier));
        self.engine.wait(until, || self.missing() <= tolerated);
        let missing = self.missing();
        if missing > tolerated || !unreached.is_empty() {
            let (round, missing) = (self.round, missing as u64);
            return Err(BarrierError { round, missing, unreached, timeout });
        }
        for pair in &mut self.counters {
            pair[parity(self.round)].begin_next();
        }
        self.round += 1;
        self.members.iter_mut().for_each(|member| member.told = false);
        Ok(())
    }

    /// How many others have not come to this round, as far as is known.
    fn missing(&self) -> usize {
        let here = |pair: &&[Counter; 2]| pair[parity(self.round)].count() == 0;
        self.counters.iter().filter(here).count()
    }

    /// Tells those that have not been told; who may not have been, and why.
    fn tell_all(&mut self, until: Time) -> Vec<(Address, Outcome)> {
        let untold = (0..self.members.len()).filter(|at| !self.members[*at].told);
        let mut next: Vec<(usize, usize)> = untold.map(|at| (at, 1)).collect();
        let (mut calls, mut unreached) = (Vec::new(), Vec::new());
        loop {
            if !next.is_empty() {
                self.call(&mut next, until, &mut calls);
            }
            if calls.is_empty() {
                return unreached;
            }
            // Each ends by its own deadline; this one only keeps the wait from being unbounded.
            let bound = self.engine.now() + Duration::from_secs(1);
            let ended = |call: &Call| call.transfer.outcome().is_some();
            // One by one, so that who does not answer keeps nobody from the next way.
            self.engine.wait(bound, || calls.iter().any(ended));
            let is_time_left = self.engine.now() < until;
            calls.retain(|call| {
                let Some(outcome) = call.transfer.outcome() else { return true };
                let member = &mut self.members[call.member];
                let (_, address) = member.ways[member.way].clone();
                if member.ended(outcome, call.tried) && is_time_left {
                    next.push((call.member, call.tried + 1));
                } else if !member.told {
                    unreached.push((address, outcome));
                }
                false
            });
        }
    }

    /// Signals the members in `next`, each over the way whose turn it is.
    fn call(&self, next: &mut Vec<(usize, usize)>, until: Time, calls: &mut Vec<Call>) {
        let own = self.invitation.name();
        let mut batch = self.engine.batch();
        for (at, _) in &*next {
            let member = &self.members[*at];
            let slot = member.slots[self.before(own, member.name)][parity(self.round)];
            let generation = slot.generation.wrapping_add((self.round / 2) as u16);
            let ((peer, _), (engine, _)) = (&member.ways[member.way], member.name);
            batch.push(self.engine.signal_only(*peer, engine, Slot { generation, ..slot }));
        }
        let timeout = until.since(self.engine.now());
        let transfers = batch.lane(Lane::Latency).deadline(timeout).submit();
        let begun = next.drain(..).zip(transfers);
        calls.extend(begun.map(|((member, tried), transfer)| Call { member, tried, transfer }));
    }
}

/// Which counter of a pair a round uses.
fn parity(round: u64) -> usize {
    (round % 2) as usize
}

/// A member that cannot join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No fabric leads there.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The two barriers are for groups of different sizes.
    #[error(
        "this barrier is for {others} others, that member's for {theirs}; make all for one group"
    )]
    Uneven {
        /// Others of this barrier.
        others: usize,
        /// Others of the invitation's.
        theirs: usize,
    },
    /// There are as many as there are to be.
    #[error("all {others} others have joined; make the barrier for more")]
    Full {
        /// How many.
        others: usize,
    },
}

/// A round that not everybody came to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "barrier, round {round}: {missing} did not come within {timeout:?}; not told: {unreached:?}"
)]
pub struct BarrierError {
    /// Which round.
    pub round: u64,
    /// How many others did not come.
    pub missing: u64,
    /// Those that could not be told: the last address tried of each, and why not there.
    pub unreached: Vec<(Address, Outcome)>,
    /// How long was waited.
    pub timeout: Duration,
}
