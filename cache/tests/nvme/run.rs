//! One schedule, from its seed.

use tranship_cache::tier::nvme::testing::PAGE;

use crate::world::{Tally, Weather, World};

/// How a schedule went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Differs when anything went differently.
    pub(crate) trace: u64,
}

/// Runs a schedule.
///
/// # Panics
/// When it does not hold.
pub(crate) fn run(seed: u64) -> Report {
    let mut world = World::new(seed);
    let ops = 20 + world.dice.below(60);
    let slow = 1 + world.dice.below(12);
    let busy = world.dice.below(8);
    world.device.inject(|faults| faults.slow = slow);
    for _ in 0..ops {
        let block = world.dice.below(world.blocks.len() as u64) as usize;
        let what = world.dice.below(100);
        match what {
            25..42 if world.hot => world.load(block, false),
            0..42 => {
                let durable = world.dice.percent(if world.hot { 70 } else { 40 });
                world.store(block, durable);
                // Many at once share a header, which is then longer than a sector.
                let more = if world.dice.percent(10) { 4 + world.dice.below(10) } else { 0 };
                for _ in 0..more {
                    let block = world.dice.below(world.blocks.len() as u64) as usize;
                    world.store(block, durable);
                }
            }
            42..60 => world.load(block, false),
            60..70 => world.load(block, true),
            70..75 => world.remove(block),
            75 => world.clear(block),
            76..79 => world.sync(),
            79..82 => world.settle(),
            82..84 | 93..96 if what < 84 || world.hot => {
                world.crash(true);
                world.device.inject(|faults| faults.slow = slow);
            }
            84 => {
                world.crash(false);
                world.device.inject(|faults| faults.slow = slow);
            }
            85 => {
                world.close();
                world.device.inject(|faults| faults.slow = slow);
            }
            86 => world.jump(),
            87..93 => fault(&mut world),
            _ => (0..20).for_each(|_| world.step()),
        }
        for _ in 0..world.dice.below(busy + 1) {
            world.step();
        }
    }
    world.end();
    Report { tally: world.tally, trace: world.trace }
}

fn fault(world: &mut World) {
    match world.weather {
        Weather::Fair => {}
        Weather::Errors => {
            let one_in = 2 + world.dice.below(30);
            match world.dice.below(3) {
                0 => world.device.inject(|faults| faults.reads_one_in = Some(one_in)),
                1 => world.device.inject(|faults| faults.writes_one_in = Some(one_in)),
                _ => world.device.inject(|faults| {
                    faults.reads_one_in = None;
                    faults.writes_one_in = None;
                }),
            }
        }
        Weather::Rot => {
            world.damaged = true;
            let bytes = world.device.bytes().len() as u64;
            // The superblocks stay: without any there is no store to speak of.
            let first = 16 * PAGE as u64;
            let few = if world.len_max > 100_000 { 64 } else { 8 };
            for _ in 0..1 + world.dice.below(few) {
                let at = first + world.dice.below(bytes - first);
                let bit = world.dice.below(8) as u8;
                world.device.rot(at, bit);
            }
        }
        Weather::Disaster => match world.dice.below(6) {
            0 => world.device.inject(|faults| faults.full = true),
            1 => world.device.inject(|faults| faults.gone = true),
            2 => world.device.inject(|faults| faults.flushes_one_in = Some(2)),
            3 => {
                let bytes = world.device.bytes().len() as u64;
                let start = world.dice.below(bytes);
                world.device.inject(|faults| faults.bad.push(start..start + 40 * PAGE as u64));
            }
            4 => world.device.inject(|faults| faults.held = true),
            _ => {}
        },
    }
}
