//! What a schedule does: a list of steps, made from a seed alone.

use std::time::Duration;

use tranship_transport::Lane;
use tranship_transport::fabric::sim::Faults;

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
    /// Sends a message, with an immediate or without.
    Send { from: Pick, to: Pick, bytes: u16, count: Option<Pick>, deadline: Duration },
    /// Delivers an immediate alone.
    Signal { from: Pick, count: Pick, lane: Lane, deadline: Duration },
    /// Asks that a transfer end now.
    Cancel { transfer: Pick },
    /// Takes a window back and waits so long for the fence.
    Revoke { window: Pick, wait: Duration },
    /// Drops a window without waiting for its fence.
    DropWindow { window: Pick },
    /// Closes a region, and makes another in its place.
    CloseRegion { host: Pick, yard: Pick, wait: Duration },
    /// Drops a counter and makes another, of the next generation.
    RenewCounter { counter: Pick },
    /// Hangs up.
    Disconnect { from: Pick, to: Pick },
    /// From now on these faults.
    Faults(Faults),
    /// A host hangs.
    Pause { host: Pick },
    /// It goes on.
    Resume { host: Pick },
    /// Nothing passes between two hosts.
    Cut { a: Pick, b: Pick },
    /// It passes again.
    Heal { a: Pick, b: Pick },
    /// An engine dies without a word.
    Kill { host: Pick },
    /// An engine closes while its transfers fly.
    CloseEngine { host: Pick, wait: Duration },
    /// A new engine comes up where one died or was closed.
    Restart { host: Pick },
}

/// A write or a read.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) from: Pick,
    pub(crate) window: Pick,
    pub(crate) bytes: u16,
    /// How the two sides are cut into pieces; none for one stretch.
    pub(crate) pieces: Option<u64>,
    /// How far it reaches out of the window.
    pub(crate) beyond: u8,
    pub(crate) reads: bool,
    pub(crate) count: Option<Pick>,
    pub(crate) lane: Lane,
    pub(crate) deadline: Duration,
}

/// A program: how many hosts, and what happens.
pub(crate) struct Program {
    pub(crate) hosts: usize,
    pub(crate) steps: Vec<Step>,
}

impl Program {
    /// The program of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let hosts = 2 + dice.below(3) as usize;
        let mut steps = Vec::new();
        // A quiet beginning: something to write to.
        for host in 0..hosts as u64 {
            for _ in 0..2 {
                steps.push(grant(&mut dice, host));
            }
        }
        for _ in 0..20 + dice.below(25) {
            steps.push(step(&mut dice));
            if dice.percent(60) {
                let span = if dice.percent(8) { dice.micros(8000) } else { dice.micros(25) };
                steps.push(Step::Run(span));
            }
        }
        Self { hosts, steps }
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

fn step(dice: &mut Dice) -> Step {
    let pick = dice.bits();
    match dice.below(100) {
        0..52 => Step::Move(Move {
            from: pick,
            window: dice.bits(),
            bytes: if dice.percent(5) { 0 } else { 1 + dice.below(900) as u16 },
            pieces: dice.percent(50).then(|| dice.bits()),
            beyond: if dice.percent(6) { dice.one_of(&[1, 2, 70]) } else { 0 },
            reads: dice.percent(30),
            count: dice.percent(50).then(|| dice.bits()),
            lane: lane(dice),
            deadline: deadline(dice),
        }),
        52..57 => Step::Send {
            from: pick,
            to: dice.bits(),
            bytes: dice.below(200) as u16,
            count: dice.percent(30).then(|| dice.bits()),
            deadline: deadline(dice),
        },
        57..60 => Step::Signal {
            from: pick,
            count: dice.bits(),
            lane: lane(dice),
            deadline: deadline(dice),
        },
        60..66 => Step::Cancel { transfer: pick },
        66..73 => grant(dice, pick),
        73..80 => Step::Revoke { window: pick, wait: wait(dice) },
        80 => Step::DropWindow { window: pick },
        81..83 => Step::CloseRegion { host: pick, yard: dice.bits(), wait: wait(dice) },
        83..86 => Step::RenewCounter { counter: pick },
        86 => Step::Disconnect { from: pick, to: dice.bits() },
        87..90 => Step::Faults(faults(dice)),
        90 => Step::Pause { host: pick },
        91..93 => Step::Resume { host: pick },
        93 => Step::Cut { a: pick, b: dice.bits() },
        94..96 => Step::Heal { a: pick, b: dice.bits() },
        96 => Step::Kill { host: pick },
        97 => Step::CloseEngine { host: pick, wait: wait(dice) },
        _ => Step::Restart { host: pick },
    }
}
