//! What a schedule does: a list of steps, made from a seed alone.

use std::time::Duration;

use tranship_transport::fabric::sim::Faults;
use tranship_transport::{Lane, Priority};

use crate::dice::Dice;

/// A choice among whatever there is when the step comes: the remainder picks.
pub(crate) type Pick = u64;

/// One step. Steps that make no sense when they come (a kill of a dead host) do nothing.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Lets time pass.
    Run(Duration),
    /// Lets peers into a free part of a region.
    Grant { host: Pick, yard: Pick, lane: Pick, margins: [u8; 2] },
    /// Moves bytes.
    Move(Move),
    /// Moves bytes in several transfers that start together.
    Batch(Batch),
    /// Sends a message, with an immediate or without.
    Send { from: Pick, to: Pick, way: Pick, bytes: u16, count: Option<Pick>, deadline: Duration },
    /// Delivers an immediate alone.
    Signal { from: Pick, count: Pick, way: Pick, lane: Lane, deadline: Duration },
    /// Asks that a transfer end now.
    Cancel { transfer: Pick },
    /// Asks that all transfers of a batch end now.
    CancelBatch { batch: Pick },
    /// Takes a window back and waits so long for the fence.
    Revoke { window: Pick, wait: Duration },
    /// Drops a window without waiting for its fence.
    DropWindow { window: Pick },
    /// Closes a region, and makes another in its place.
    CloseRegion { host: Pick, yard: Pick, wait: Duration },
    /// Drops a counter and makes another, of the next generation.
    RenewCounter { counter: Pick },
    /// Those that live make a barrier, all or all but one.
    Meet { but: Pick },
    /// A member comes to the barrier and waits so long.
    Come { member: Pick, wait: Duration },
    /// All members come, one after the other.
    ComeAll { first: Pick, wait: Duration },
    /// A host writes the next number into a word that another watches.
    Bump { from: Pick, host: Pick, deadline: Duration },
    /// Somebody else is told of a host's word from now on.
    Rewatch { host: Pick },
    /// A host waits so long for a change of its word.
    AwaitWord { host: Pick, wait: Duration },
    /// Hangs up.
    Disconnect { from: Pick, to: Pick },
    /// From now on these faults.
    Faults(Faults),
    /// A host hangs.
    Pause { host: Pick },
    /// It goes on.
    Resume { host: Pick },
    /// Nothing passes between two hosts, over one of the fabrics or all.
    Cut { a: Pick, b: Pick, way: Pick },
    /// Nothing passes between a host and all others, over one of the fabrics.
    Unplug { host: Pick, way: Pick },
    /// All passes again between two hosts.
    Heal { a: Pick, b: Pick },
    /// An engine dies without a word.
    Kill { host: Pick },
    /// An engine closes while its transfers fly.
    CloseEngine { host: Pick, wait: Duration },
    /// A new engine comes up where one died or was closed, maybe without one of its fabrics.
    Restart { host: Pick, fabrics: Pick },
}

/// A write or a read.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) from: Pick,
    pub(crate) window: Pick,
    pub(crate) route: Route,
    pub(crate) bytes: u16,
    /// How the two sides are cut into pieces; none for one stretch.
    pub(crate) pieces: Option<u64>,
    /// How far it reaches out of the window.
    pub(crate) beyond: u8,
    pub(crate) reads: bool,
    pub(crate) count: Option<Pick>,
    pub(crate) lane: Lane,
    pub(crate) priority: Priority,
    pub(crate) deadline: Duration,
}

/// Where the best way to a window is said to lead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    /// Wherever it led when it was last opened.
    Known,
    /// To its owner; opened anew.
    Straight,
    /// To where nobody is.
    Nowhere,
    /// To another engine.
    Stranger(Pick),
}

/// Moves of one engine that start together, under one lane and deadline.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) from: Pick,
    pub(crate) moves: Vec<Move>,
    /// They are the parts of one source.
    pub(crate) scatters: bool,
    pub(crate) lane: Lane,
    pub(crate) deadline: Duration,
}

/// A program: how many hosts, and what happens.
pub(crate) struct Program {
    pub(crate) hosts: usize,
    /// How many fabrics each host has, and which of them its engine speaks.
    pub(crate) ways: usize,
    pub(crate) fabrics: Vec<Pick>,
    pub(crate) steps: Vec<Step>,
}

impl Program {
    /// The program of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let hosts = 2 + dice.below(3) as usize;
        let ways = 1 + dice.below(2) as usize;
        // Mostly all of them.
        let fabrics = (0..hosts).map(|_| if dice.percent(80) { 0 } else { dice.bits() }).collect();
        let mut steps = Vec::new();
        // A quiet beginning: something to write to.
        for host in 0..hosts as u64 {
            for _ in 0..2 {
                steps.push(grant(&mut dice, host));
            }
        }
        if dice.percent(50) {
            steps.push(Step::Meet { but: dice.bits() });
        }
        for _ in 0..18 + dice.below(22) {
            steps.push(step(&mut dice));
            if dice.percent(60) {
                let span = if dice.percent(8) { dice.micros(8000) } else { dice.micros(25) };
                steps.push(Step::Run(span));
            }
        }
        Self { hosts, ways, fabrics, steps }
    }
}

fn grant(dice: &mut Dice, host: Pick) -> Step {
    let margins = [dice.below(60) as u8, dice.below(60) as u8];
    Step::Grant { host, yard: dice.bits(), lane: dice.bits(), margins }
}

fn deadline(dice: &mut Dice) -> Duration {
    let micros = dice.one_of(&[30, 200, 1000, 5000, 30_000]);
    Duration::from_micros(micros / 2) + dice.micros(micros / 2)
}

fn wait(dice: &mut Dice) -> Duration {
    if dice.percent(30) { Duration::ZERO } else { dice.micros(3000) }
}

/// How long a member stays at a barrier: mostly long enough to tell the others.
fn stay(dice: &mut Dice) -> Duration {
    if dice.percent(20) { dice.micros(10) } else { dice.micros(400) }
}

fn lane(dice: &mut Dice) -> Lane {
    dice.one_of(&Lane::ALL)
}

fn faults(dice: &mut Dice) -> Faults {
    let bad = Faults { late_by: Duration::from_micros(100), ..Faults::bad_day() };
    let slow = Duration::from_millis(10);
    match dice.below(6) {
        0 | 1 => Faults::none(),
        2 => bad,
        3 => Faults { slow_flush: 0.5, slow_flush_takes: slow, failed_flush: 0.3, ..bad },
        4 => Faults { drop: 0.4, duplicate: 0.3, late: 0.5, ..bad },
        _ => Faults { lost_completion: 0.2, failed_flush: 0.2, ..bad },
    }
}

fn a_move(dice: &mut Dice, from: Pick) -> Move {
    Move {
        from,
        window: dice.bits(),
        route: match dice.below(10) {
            0..5 => Route::Known,
            5 | 6 => Route::Straight,
            7 | 8 => Route::Nowhere,
            _ => Route::Stranger(dice.bits()),
        },
        bytes: if dice.percent(5) { 0 } else { 1 + dice.below(900) as u16 },
        pieces: dice.percent(50).then(|| dice.bits()),
        beyond: if dice.percent(6) { dice.one_of(&[1, 2, 70]) } else { 0 },
        reads: dice.percent(30),
        count: dice.percent(50).then(|| dice.bits()),
        lane: lane(dice),
        priority: dice.one_of(&[Priority::High, Priority::Normal, Priority::Low]),
        deadline: deadline(dice),
    }
}

fn batch(dice: &mut Dice, from: Pick) -> Batch {
    let mut moves: Vec<_> = (0..2 + dice.below(4)).map(|_| a_move(dice, from)).collect();
    let scatters = dice.percent(40);
    if scatters {
        for it in &mut moves {
            (it.reads, it.pieces) = (false, None);
        }
    }
    Batch { from, moves, scatters, lane: lane(dice), deadline: deadline(dice) }
}

fn step(dice: &mut Dice) -> Step {
    let pick = dice.bits();
    match dice.below(130) {
        0..40 => Step::Move(a_move(dice, pick)),
        40..47 => Step::Batch(batch(dice, pick)),
        47..52 => Step::Send {
            from: pick,
            to: dice.bits(),
            way: dice.bits(),
            bytes: dice.below(200) as u16,
            count: dice.percent(30).then(|| dice.bits()),
            deadline: deadline(dice),
        },
        52..55 => Step::Signal {
            from: pick,
            count: dice.bits(),
            way: dice.bits(),
            lane: lane(dice),
            deadline: deadline(dice),
        },
        55..60 => Step::Cancel { transfer: pick },
        60..64 => Step::CancelBatch { batch: pick },
        64..72 => grant(dice, pick),
        72..80 => Step::Revoke { window: pick, wait: wait(dice) },
        80 => Step::DropWindow { window: pick },
        81..83 => Step::CloseRegion { host: pick, yard: dice.bits(), wait: wait(dice) },
        83..86 => Step::RenewCounter { counter: pick },
        86..88 => Step::Meet { but: pick },
        88..91 => Step::Come { member: pick, wait: stay(dice) },
        91..97 => Step::ComeAll { first: pick, wait: stay(dice) },
        97..104 => Step::Bump { from: pick, host: dice.bits(), deadline: deadline(dice) },
        104 => Step::Rewatch { host: pick },
        105 => Step::AwaitWord { host: pick, wait: stay(dice) },
        106 => Step::Disconnect { from: pick, to: dice.bits() },
        107..111 => Step::Faults(faults(dice)),
        111 => Step::Pause { host: pick },
        112..114 => Step::Resume { host: pick },
        114..116 => Step::Cut { a: pick, b: dice.bits(), way: dice.bits() },
        116..118 => Step::Unplug { host: pick, way: dice.bits() },
        118..121 => Step::Heal { a: pick, b: dice.bits() },
        121..123 => Step::Kill { host: pick },
        123 => Step::CloseEngine { host: pick, wait: wait(dice) },
        _ => {
            let fabrics = if dice.percent(60) { 0 } else { dice.bits() };
            Step::Restart { host: pick, fabrics }
        }
    }
}
