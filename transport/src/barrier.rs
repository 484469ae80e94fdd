//! Barriers: nobody goes on before everybody has come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::counter::Counter;
use crate::engine::{CountersExhausted, Engine, PeerError};
use crate::immediate::Slot;
use crate::lane::Lane;
use crate::outcome::Outcome;
use crate::peer::Peer;

/// A meeting of engines: each signals all others and waits to be signalled by all.
///
/// Rounds alternate between two counters: a member can be one round ahead of another, never two,
/// because the round between needs the other's signal. So no order of arrivals is assumed.
#[derive(Debug)]
pub struct Barrier {
    engine: Engine,
    counters: [Counter; 2],
    members: Vec<Member>,
    round: u64,
}

#[derive(Debug)]
struct Member {
    peer: Peer,
    address: Address,
    slots: [Slot; 2],
    /// It was signalled in this round.
    signalled: bool,
}

/// What another engine needs to join a barrier: serialisable, handed over by any channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// Where the engine is, best first.
    pub addresses: Vec<Address>,
    /// Its counters for even and odd rounds.
    pub slots: [Slot; 2],
}

impl Barrier {
    /// A barrier without other members. Each member makes its own, hands out its invitation and
    /// joins the others before the first round.
    ///
    /// # Errors
    /// When the engine has no counters left.
    pub fn new(engine: &Engine) -> Result<Self, CountersExhausted> {
        let counters = [engine.counter()?, engine.counter()?];
        Ok(Self { engine: engine.clone(), counters, members: Vec::new(), round: 0 })
    }

    /// What the other members need.
    #[must_use]
    pub fn invitation(&self) -> Invitation {
        let slots = [self.counters[0].slot(), self.counters[1].slot()];
        Invitation { addresses: self.engine.addresses().to_vec(), slots }
    }

    /// Adds a member, unless it is one already. All members must have each other before the first
    /// round.
    ///
    /// # Errors
    /// When no fabric of this engine leads there.
    pub fn join(&mut self, invitation: &Invitation) -> Result<(), PeerError> {
        let (peer, address) = self.engine.first_peer(&invitation.addresses)?;
        let slots = invitation.slots;
        if self.members.iter().any(|member| (member.peer, member.slots) == (peer, slots)) {
            return Ok(());
        }
        self.members.push(Member { peer, address, slots, signalled: false });
        Ok(())
    }

    /// How many others there are.
    #[must_use]
    pub fn others(&self) -> usize {
        self.members.len()
    }

    /// Comes to the barrier and waits, up to `timeout`, until all others have come. Everything they
    /// did before is done; whether their writes have arrived is for counters to say.
    ///
    /// # Errors
    /// When somebody did not come in time or could not be told. The round is not over: the next call
    /// goes on with it.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), BarrierError> {
        let until = self.engine.now() + timeout;
        let parity = (self.round % 2) as usize;
        let mut batch = self.engine.batch();
        let called: Vec<usize> =
            (0..self.members.len()).filter(|at| !self.members[*at].signalled).collect();
        for &at in &called {
            let Member { peer, slots, .. } = &self.members[at];
            batch.push(self.engine.signal(*peer, slots[parity]));
        }
        let told = batch.lane(Lane::Latency).deadline(timeout).wait();
        let mut unreached = Vec::new();
        for (at, outcome) in called.into_iter().zip(told) {
            let member = &mut self.members[at];
            // One that is lost may have arrived: it is not sent twice.
            member.signalled = matches!(outcome, Outcome::Done | Outcome::Lost(_));
            if !outcome.is_done() {
                unreached.push((member.address.clone(), outcome));
            }
        }
        let target = self.members.len() as u64 * (self.round / 2 + 1);
        let counter = &self.counters[parity];
        let left = until.since(self.engine.now());
        let came = counter.wait(target, left).is_ok();
        if came && unreached.is_empty() {
            self.round += 1;
            self.members.iter_mut().for_each(|member| member.signalled = false);
            return Ok(());
        }
        let missing = target.saturating_sub(counter.count());
        Err(BarrierError { round: self.round, missing, unreached, timeout })
    }
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
    /// Those that could not be told, and why.
    pub unreached: Vec<(Address, Outcome)>,
    /// How long was waited.
    pub timeout: Duration,
}
