//! Ours: keeps what is expected to be used again soonest.
//!
//! | module | what it holds |
//! |---|---|
//! | `class` | what is known of a block when it is used |
//! | `life` | how long blocks of a class wait for their next use, and what keeping one is worth |
//! | `known` | the blocks that are known, resident ones and ghosts |
//! | `order` | the candidate that is worth least |
//! | `guard`, `mini` | plain policies that take over where they do better, and how that is known |

mod class;
mod guard;
mod known;
mod life;
mod mini;
mod order;

#[cfg(test)]
mod tests;

use std::fmt;

use self::class::{Class, Kind, LEVELS, bits};
use self::guard::{Guard, Rule};
use self::known::{At, Known, Table};
use self::life::Lives;
use self::order::Order;
use super::queue::Blocks;
use super::{BlockId, Mark, Policy, Removal, Request, Traits, name};
use crate::key::Key;
use crate::time::Millis;

/// Blocks that are followed by other ones more often than this are shared by many chains.
const WAYS_OWN: u8 = 4;
/// A lookup of the same blocks within this is the same request.
const REPEAT_MS: u64 = 1_000;
/// A block that is stored or used within this after a lookup of it is what the lookup was for: computing
/// a long prompt takes a while.
const ANNOUNCED_MS: u64 = 60_000;
/// Uses between two estimates.
const ESTIMATE_USES: usize = 4_096;
const ESTIMATE_USES_FIRST: usize = 256;
/// Uses after which an observation counts for a third of a new one.
const FADE_USES: usize = 200_000;
/// Known blocks counted for each use, so that all are counted well before their number doubles.
const COUNTED_PER_USE: usize = 4;
/// Gaps below so many octaves of milliseconds are one level: half a second.
const GAP_OCTAVE_MIN: usize = 9;

/// Predicts the next use of each block from its lineage, and keeps those that pay best.
///
/// [`docs/policy.md`](https://github.com/tranship/tranship/blob/main/docs/policy.md) explains it.
pub struct Lineage {
    known: Table,
    lives: Lives,
    order: Order,
    guard: Guard,
    /// Where resident blocks are known.
    blocks: Blocks<Option<At>>,
    now_ms: u64,
    uses: usize,
    estimate_at: usize,
    counted: usize,
    /// Names of the blocks of one request, and where those that are known are.
    names: Vec<u64>,
    places: Vec<At>,
}

/// What a request is for the blocks it asks for.
struct Use {
    kind: Kind,
    /// Blocks known before, and blocks in all.
    known: usize,
    len: usize,
    /// Mean gap of the session, if it goes on.
    gap: known::Gap,
    turns: u16,
}

impl Default for Lineage {
    fn default() -> Self {
        Self::new()
    }
}

impl Lineage {
    /// A policy that knows no block.
    pub fn new() -> Self {
        Self {
            known: Table::new(),
            lives: Lives::new(),
            order: Order::new(),
            guard: Guard::new(),
            blocks: Blocks::default(),
            now_ms: 0,
            uses: 0,
            estimate_at: ESTIMATE_USES_FIRST,
            counted: 0,
            names: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Time does not run backwards here, whatever a caller says.
    fn tick(&mut self, now: Millis) -> u64 {
        self.now_ms = self.now_ms.max(now.0);
        self.now_ms
    }

    fn worth_of(&self, known: &Known) -> f32 {
        self.lives.index(known.row, known.age_ms(self.now_ms))
    }

    fn mark_of(&self, known: &Known) -> Mark {
        pack(self.lives.class(known.row), known.turns.max(known.uses))
    }

    fn rank(&self, id: BlockId) -> order::Rank {
        self.blocks[id].map_or((0.0, 0), |at| {
            let known = &self.known[at];
            (self.worth_of(known), known.last_ms)
        })
    }

    /// What the request is for its blocks; those at `places` are known.
    fn understand(&mut self, now_ms: u64) -> Use {
        let (len, known) = (self.names.len(), self.places.len());
        let fresh = Use { kind: Kind::Fresh, known, len, gap: known::Gap::default(), turns: 1 };
        let Some(link) = self.places.last().map(|at| self.known[*at]) else { return fresh };
        if link.ways > WAYS_OWN {
            return fresh;
        }
        let gap = link.gap.and(link.age_ms(now_ms), link.turns);
        // The last block of a request is mostly not full and says nothing about the way taken.
        let elsewhere = known + 1 < len && link.child != 0 && link.child != self.names[known];
        if elsewhere {
            self.leave_behind(&link);
            return Use { kind: Kind::Branch, gap, ..fresh };
        }
        let turns = link.turns.saturating_add(1);
        Use { kind: Kind::turn(link.turns), gap, turns, ..fresh }
    }

    /// The session has gone another way: what followed `link` when it was used last is of less use.
    fn leave_behind(&mut self, link: &Known) {
        let mut next = link.child;
        while next != 0
            && let Some(at) = self.known.find(next)
        {
            let known = self.known[at];
            let old = self.lives.class(known.row).kind();
            if known.last_ms != link.last_ms || old == Kind::Left {
                break;
            }
            let row = self.lives.row(Class::new(Kind::Left, usize::from(link.ways), 0, 0));
            self.lives.left(known.row, row, known.age_ms(self.now_ms));
            self.known[at].row = row;
            if let Some(id) = known.resident() {
                self.order.consider(id);
            }
            next = known.child;
        }
    }

    /// Counts a use of the block at `index` of the request.
    fn touch(&mut self, index: usize, of: &Use, now_ms: u64) {
        let name = self.names[index];
        // Behind an unknown block others may be known: keys that name no parent.
        let at = self.places.get(index).copied().or_else(|| self.known.find(name));
        let at = at.unwrap_or_else(|| self.known.meet(name, now_ms, life::RowId::default()));
        let before = self.known[at];
        let new = before.uses == 0;
        if !new {
            self.lives.hit(before.row, before.age_ms(now_ms));
            self.known.renew(at);
        }
        let child = if index + 2 < of.len { self.names[index + 1] } else { before.child };
        let ways = before.ways.saturating_add(u8::from(child != before.child));
        // What is before a block that many share is shared by at least as many.
        let shared = ways > WAYS_OWN || of.kind == Kind::Fresh && index < of.known;
        let gap = match shared {
            true => before.gap.and(before.age_ms(now_ms), before.uses),
            false => of.gap,
        };
        let uses = before.uses.saturating_add(1);
        let class = if new && index + 1 == of.len && of.len > 1 {
            Class::new(Kind::Tip, 0, 0, 0)
        } else if shared {
            let level = bits(usize::from(uses)).saturating_sub(3);
            Class::new(Kind::Shared, level, gap_level(gap), 0)
        } else {
            of.class(index)
        };
        let row = self.lives.row(class);
        let known = &mut self.known[at];
        (known.last_ms, known.row, known.uses, known.turns) = (now_ms, row, uses, of.turns);
        (known.gap, known.child, known.ways, known.announced) = (gap, child, ways, true);
    }

    /// Whether a lookup has told of the use of a block that comes now.
    fn is_announced(&self, at: At) -> bool {
        let known = &self.known[at];
        known.announced && known.age_ms(self.now_ms) < ANNOUNCED_MS
    }

    /// The slow work that comes with so many uses, in small pieces.
    fn after(&mut self, uses: usize, now_ms: u64) {
        for _ in 0..COUNTED_PER_USE * uses {
            let Some(ghost) = self.known.surplus() else { break };
            let known = &self.known[ghost];
            self.lives.gone(known.row, known.age_ms(now_ms));
            self.known.forget(ghost);
        }
        for _ in 0..COUNTED_PER_USE * uses {
            if let Some(known) = self.known.place(self.counted) {
                self.lives.count(known.row, known.age_ms(now_ms));
            }
            self.counted += 1;
            if self.counted >= self.known.places() {
                self.counted = 0;
                self.lives.counted();
            }
        }
        self.uses += uses;
        if self.uses >= self.estimate_at {
            // At first often, since each use tells much.
            let step = (self.uses / 4).min(ESTIMATE_USES);
            self.lives.estimate(step as f32 / FADE_USES as f32);
            self.estimate_at = self.uses + step;
        }
    }

    /// A use that no lookup announced: all that is known is the block itself.
    fn touch_alone(&mut self, name: u64, parent: Option<u64>, now_ms: u64) {
        let known = self.known.find(name).map(|at| self.known[at]);
        let before = parent.and_then(|parent| self.known.find(parent)).map(|at| self.known[at]);
        self.names.clear();
        self.names.push(name);
        let of = match (known, before) {
            (Some(known), _) => Use {
                kind: Kind::turn(known.turns),
                known: 1,
                len: 1,
                gap: known.gap.and(known.age_ms(now_ms), known.turns),
                turns: known.turns.saturating_add(1),
            },
            // A block that follows one that was just used is of the same request.
            (None, Some(parent)) if parent.age_ms(now_ms) < REPEAT_MS => {
                let kind = self.lives.class(parent.row).kind();
                Use { kind, known: 0, len: 1, gap: parent.gap, turns: parent.turns }
            }
            _ => Use { kind: Kind::Fresh, known: 0, len: 1, gap: known::Gap::default(), turns: 1 },
        };
        self.places.clear();
        self.touch(0, &of, now_ms);
        self.after(1, now_ms);
    }
}

fn gap_level(gap: known::Gap) -> usize {
    1 + gap.octave().saturating_sub(GAP_OCTAVE_MIN)
}

impl Use {
    fn class(&self, index: usize) -> Class {
        let added = self.len - self.known;
        let size = match added {
            0..=1 => 0,
            2..=3 => 1,
            4..=7 => 2,
            8..=15 => 3,
            16..=63 => 4,
            _ => 5,
        };
        let part = match index.checked_sub(self.known) {
            None => 0,
            Some(beyond) if beyond * 4 < added => 1,
            Some(_) => 2,
        };
        let gap = match self.kind {
            // There is no gap; what there is, is a prefix that many share.
            Kind::Fresh => bits(self.known),
            _ => gap_level(self.gap),
        };
        Class::new(self.kind, size, gap, part)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lineage")
            .field("known", &self.known.places())
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Policy for Lineage {
    fn name(&self) -> &'static str {
        "lineage"
    }

    fn on_request(&mut self, request: &Request<'_>, now: Millis) {
        let now_ms = self.tick(now);
        self.names.clear();
        self.names.extend(request.keys.iter().map(|key| name(request.scope, *key)));
        let Some(last) = self.names.last() else { return };
        let repeated = |at: At| {
            let known = &self.known[at];
            known.announced && known.age_ms(now_ms) < REPEAT_MS
        };
        if self.known.find(*last).is_some_and(repeated) {
            return;
        }
        self.places.clear();
        self.places.extend(self.names.iter().map_while(|name| self.known.find(*name)));
        let of = self.understand(now_ms);
        for index in 0..of.len {
            self.touch(index, &of, now_ms);
        }
        self.after(of.len, now_ms);
        let Self { known, lives, guard, names, .. } = self;
        let worth = |name: u64| {
            known.find(name).map_or((0.0, 0), |at| {
                let known = &known[at];
                (lives.index(known.row, known.age_ms(now_ms)), known.last_ms)
            })
        };
        guard.watch(names, &worth, now);
    }

    fn on_insert(&mut self, id: BlockId, block: &Traits, now: Millis) {
        let now_ms = self.tick(now);
        let parent = block.parent.map(|parent| name(block.scope, parent));
        let known = self.known.find(block.name());
        let at = match known.filter(|at| self.is_announced(*at)) {
            Some(at) => Some(at),
            None => {
                self.touch_alone(block.name(), parent, now_ms);
                self.known.find(block.name())
            }
        };
        // Of two keys of one name, the one that came first is known by it.
        let at = at.filter(|at| self.known[*at].resident().is_none());
        if let Some(at) = at {
            self.known[at].announced = false;
            self.known.settle(at, id);
        }
        self.blocks.put(id, at);
        self.order.insert(id);
        self.guard.on_insert(id, block, now);
    }

    fn on_hit(&mut self, id: BlockId, now: Millis) {
        let now_ms = self.tick(now);
        self.guard.queues().on_hit(id, now);
        let Some(at) = self.blocks[id] else { return };
        if !self.is_announced(at) {
            self.touch_alone(self.known[at].name, None, now_ms);
        }
        self.known[at].announced = false;
    }

    fn on_hold(&mut self, id: BlockId) {
        self.guard.queues().on_hold(id);
        self.order.remove(id);
    }

    fn on_free(&mut self, id: BlockId) {
        self.guard.queues().on_free(id);
        self.order.insert(id);
    }

    fn on_remove(&mut self, id: BlockId, why: Removal) {
        self.guard.on_remove(id, why);
        self.order.remove(id);
        let Some(at) = self.blocks[id].take() else { return };
        self.known.leave(at);
        if why != Removal::Evicted {
            // Somebody else decided: nothing is learnt from what happens to it later.
            let known = &self.known[at];
            self.lives.gone(known.row, known.age_ms(self.now_ms));
            self.known.forget(at);
        }
    }

    fn victim(&mut self, now: Millis) -> Option<BlockId> {
        self.tick(now);
        self.guard.room_needed();
        let Self { known, lives, order, blocks, now_ms, .. } = self;
        let of = |id: BlockId| blocks[id].map(|at| &known[at]);
        match self.guard.rule() {
            Rule::Worth => order.least(|id| {
                of(id).map_or((0.0, 0), |known| {
                    (lives.index(known.row, known.age_ms(*now_ms)), known.last_ms)
                })
            }),
            Rule::Recency => order.least(|id| (0.0, of(id).map_or(0, |known| known.last_ms))),
            Rule::Queues => self.guard.queues().victim(now),
        }
    }

    fn admit(&mut self, block: &Traits, victim: BlockId, now: Millis) -> bool {
        let now_ms = self.tick(now);
        if self.guard.rule() != Rule::Worth {
            return true;
        }
        let known = self.known.find(block.name());
        if !known.is_some_and(|at| self.is_announced(at)) {
            let parent = block.parent.map(|parent| name(block.scope, parent));
            self.touch_alone(block.name(), parent, now_ms);
        }
        let known = self.known.find(block.name()).map(|at| &self.known[at]);
        known.is_none_or(|known| self.worth_of(known) >= self.rank(victim).0)
    }

    fn mark(&self, id: BlockId) -> Mark {
        self.blocks[id].map_or_else(Mark::default, |at| self.mark_of(&self.known[at]))
    }

    fn recall(&self, scope: u32, key: Key, now: Millis) -> Option<(Mark, Millis)> {
        let known = &self.known[self.known.find(name(scope, key))?];
        Some((self.mark_of(known), Millis(known.age_ms(self.now_ms.max(now.0)))))
    }

    fn on_hit_below(&mut self, mark: Mark, age: Millis, now: Millis) -> Mark {
        self.tick(now);
        let (class, turns) = unpack(mark);
        if mark != Mark::default()
            && let Some(row) = self.lives.find(class)
        {
            self.lives.hit(row, age.0);
        }
        let turns = turns.saturating_add(1).max(1);
        let [size, _, _] = class.levels();
        let gap = gap_level(known::Gap::default().and(age.0, 1));
        let class = match class.kind() {
            Kind::Shared => {
                Class::new(Kind::Shared, bits(usize::from(turns)).saturating_sub(3), gap, 0)
            }
            _ => Class::new(Kind::turn(turns), size, gap, 0),
        };
        pack(class, turns)
    }

    fn worth(&self, mark: Mark, age: Millis) -> f32 {
        let (class, _) = unpack(mark);
        let row = self.lives.find(class).or_else(|| self.lives.find(class.coarse()));
        match row {
            Some(row) if mark != Mark::default() => self.lives.index(row, age.0) * 1e3,
            _ => super::worth::by_recency(age),
        }
    }

    fn on_return(&mut self, id: BlockId, block: &Traits, mark: Mark, now: Millis) {
        let (_, turns) = unpack(mark);
        let known = self.known.find(block.name()).is_some();
        self.on_insert(id, block, now);
        if let Some(at) = self.blocks[id].filter(|_| !known) {
            self.known[at].turns = turns.max(1);
        }
    }
}

/// Class and count of a mark; one is added to the class, so that no mark of a block is the default.
fn pack(class: Class, turns: u16) -> Mark {
    Mark((class.code() as u32 + 1) << 16 | u32::from(turns))
}

fn unpack(Mark(mark): Mark) -> (Class, u16) {
    (Class::from_code((mark >> 16).saturating_sub(1) as usize), mark as u16)
}

const _: () = assert!(class::CLASSES < (1 << 16) - 1 && LEVELS[1] <= class::LEVELS_MAX);
