//! What a write or a read moves: its bytes, cut into packets.

use std::iter;
use std::sync::Arc;

use crate::fabric::{self, Local, Remote};
use crate::memory::Memory;
use crate::pages::{Cursor, Piece, Plan};

/// The bytes of both sides, and the memory that keeps this side's in place: packets of a dead
/// initiator still land.
pub(super) struct Payload {
    pub(super) local: Local,
    pub(super) remote: Remote,
    plan: Option<Plan>,
    /// Where each packet begins in the plan.
    cuts: Vec<Cursor>,
    _memory: Arc<Memory>,
}

impl Payload {
    pub(super) fn new(
        memory: &Arc<Memory>,
        local: Local,
        remote: Remote,
        plan: Option<&Plan>,
    ) -> Self {
        let _memory = Arc::clone(memory);
        Self { local, remote, plan: plan.cloned(), cuts: Vec::new(), _memory }
    }

    /// How many bytes move.
    pub(super) fn bytes(&self) -> u64 {
        fabric::bytes(&self.local, self.plan.as_ref())
    }

    /// How far it reaches on the peer's side.
    pub(super) fn reach(&self) -> u64 {
        fabric::reach(&self.local, self.plan.as_ref())
    }

    /// Cuts it into packets: each carries the next bytes of the plan, however many pieces they are.
    pub(super) fn cut(&mut self, packet_bytes: u64) {
        let Some(plan) = &self.plan else { return };
        let (mut cursor, mut left) = (plan.cursor(), 0);
        loop {
            if left == 0 {
                self.cuts.push(cursor);
                left = packet_bytes;
            }
            let Some(piece) = cursor.next(plan, left) else { return };
            left -= piece.len;
        }
    }

    /// The stretches of a packet that carries `bytes` bytes from `from` on.
    pub(super) fn pieces(
        &self,
        packet: u32,
        from: u64,
        bytes: u64,
    ) -> impl Iterator<Item = Piece> + '_ {
        let mut walk = self.plan.as_ref().map(|plan| (plan, self.cuts[packet as usize]));
        let mut left = bytes;
        iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let piece = match &mut walk {
                Some((plan, cursor)) => cursor.next(plan, left)?,
                None => Piece { local: from, remote: from, len: left },
            };
            left -= piece.len;
            Some(piece)
        })
    }
}
