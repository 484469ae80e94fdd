//! One tenant's bookkeeping behind its mutex, with what is told of its changes.

use std::sync::Arc;

use super::{Hub, Move, TenantId};
use crate::arena::Arena;
use crate::sync::{DRAM, Ranked};
use crate::tier::Stack;
use crate::tier::dram::Dram;

pub(crate) struct Shard {
    tenant: TenantId,
    arena: Arena,
    dram: Ranked<Dram, DRAM>,
    hub: Arc<Hub>,
}

impl Shard {
    pub(crate) fn new(tenant: TenantId, arena: Arena, dram: Dram, hub: Arc<Hub>) -> Self {
        Self { tenant, arena, dram: Ranked::new(dram), hub }
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    pub(crate) fn verifies_commits(&self) -> bool {
        self.hub.verify_on_commit
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.hub.stack
    }

    /// Looks at the bookkeeping, or changes what nobody is told of.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Dram) -> R) -> R {
        look(&mut self.dram.lock())
    }

    /// Changes the bookkeeping. Events are published, waiters and moves queued before the lock is let go,
    /// so their order is that of the changes; the bell rings after.
    pub(crate) fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut Dram) -> R) -> R {
        let mut dram = self.dram.lock();
        let result = change(&mut dram);
        if dram.effects.is_empty() {
            return result;
        }
        let woke = !dram.effects.woken.is_empty();
        if woke {
            self.hub.wakes.lock().append(&mut dram.effects.woken);
        }
        if !dram.effects.changes.is_empty() {
            let mut events = self.hub.events.lock();
            for (identity, change) in dram.effects.changes.drain(..) {
                events.push(self.tenant, identity, change);
            }
        }
        let moves = !dram.effects.departing.is_empty();
        if moves {
            let departing = dram.effects.departing.drain(..);
            let moves = departing.map(|departing| Move::new(Arc::clone(self), departing));
            self.hub.moves.lock().extend(moves);
        }
        drop(dram);
        if (woke || moves)
            && let Some(notify) = &self.hub.notify
        {
            notify();
        }
        result
    }
}
