//! Immediates: 32 bits delivered after the payload they announce is visible.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place to count arrivals: an index and the generation of its present owner.
///
/// The owner of a [`Counter`](crate::Counter) hands its slot to writers; a straggler that carries
/// the slot of an earlier owner differs in generation and is not counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Which counter of the receiving engine.
    pub index: u16,
    /// Which owner of that counter.
    pub generation: u16,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}.{}", self.index, self.generation)
    }
}

/// The 32 bits on the wire: slot index in the low half, generation in the high half.
///
/// Fits the immediate data of InfiniBand verbs (`ibv_post_send(3)`, `imm_data`) and libfabric's
/// remote CQ data (`fi_cq(3)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Immediate(pub u32);

impl From<Slot> for Immediate {
    fn from(slot: Slot) -> Self {
        Self(u32::from(slot.index) | u32::from(slot.generation) << 16)
    }
}

impl From<Immediate> for Slot {
    fn from(immediate: Immediate) -> Self {
        Self { index: immediate.0 as u16, generation: (immediate.0 >> 16) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn slot_survives_the_wire(index: u16, generation: u16) {
            let slot = Slot { index, generation };
            proptest::prop_assert_eq!(Slot::from(Immediate::from(slot)), slot);
        }
    }
}
