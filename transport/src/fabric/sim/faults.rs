//! What goes wrong on a simulated network.

use std::time::Duration;

use crate::address::Address;

/// How often things go wrong, as probabilities between 0 and 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Faults {
    /// A packet is lost and sent again.
    pub drop: f64,
    /// A packet arrives twice; the second is recognised and dropped.
    pub duplicate: f64,
    /// A packet is late, by [`Faults::late_by`] at most.
    pub late: f64,
    /// How late a late packet is at most.
    pub late_by: Duration,
    /// A completion is late, by [`Faults::late_by`] at most.
    pub late_completion: f64,
    /// A completion never comes, and neither does a flush: nobody learns how the operation ended
    /// until its connection ends.
    pub lost_completion: f64,
    /// A flush takes [`Faults::slow_flush_takes`] longer.
    pub slow_flush: f64,
    /// How much longer a slow flush takes.
    pub slow_flush_takes: Duration,
    /// A flush fails: the operation ends when it would have without.
    pub failed_flush: f64,
    /// A post is answered `Busy` for no visible reason.
    pub busy: f64,
    /// **A defect**, to prove that tests notice: the immediate overtakes its payload.
    pub overtaking_immediate: f64,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            drop: 0.0,
            duplicate: 0.0,
            late: 0.0,
            late_by: Duration::from_micros(500),
            late_completion: 0.0,
            lost_completion: 0.0,
            slow_flush: 0.0,
            slow_flush_takes: Duration::from_millis(500),
            failed_flush: 0.0,
            busy: 0.0,
            overtaking_immediate: 0.0,
        }
    }

    /// What a bad day brings and a correct engine hides: loss, duplicates, late packets and
    /// completions, a NIC that is out of room. Every operation still ends well.
    #[must_use]
    pub const fn bad_day() -> Self {
        Self {
            drop: 0.05,
            duplicate: 0.05,
            late: 0.1,
            late_completion: 0.2,
            busy: 0.1,
            ..Self::none()
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// What can be done to a network, at once ([`Network::act`](super::Network::act)) or at a given time
/// ([`Network::at`](super::Network::at)).
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// The engine at this address dies. Its packets under way still land, and peers notice after
    /// [`Config::death_noticed`](super::Config::death_noticed). A new engine may take the address.
    Kill(Address),
    /// The host at this address hangs: nothing is sent, received, landed or reported there, and
    /// nobody is told.
    Pause(Address),
    /// It goes on; what reached it meanwhile is processed in order.
    Resume(Address),
    /// Nothing passes between two addresses, in either direction.
    Cut(Address, Address),
    /// It passes again.
    Heal(Address, Address),
    /// From now on these faults.
    Faults(Faults),
}
