//! What the engine itself costs: small writes over the null device of `sim`, on which everything
//! ends at once, inside of the post.

use std::time::Instant;

use tranship_transport::fabric::sim::{Config, Network};
use tranship_transport::{Drive, Engine, HostMemory, Outcome, Transfers};

use super::{PATIENCE, done};
use crate::bench::line::{Latency, Posts};
use crate::bench::rounds::{Tally, in_turns};
use crate::bench::{Error, Line, Plan};

/// Memory of each side.
const MEMORY_BYTES: usize = 64 << 10;
/// Batches before anything is measured.
const WARM_UP: u64 = 10_000;
/// Batches between two looks at the clock: looking costs about as much as a write.
const BATCHES: u64 = 64;

/// Measures writes of `size` bytes, `batch` of them posted together. The other side is in this
/// process and does nothing.
///
/// # Errors
/// When there is no engine, or a write does not end well.
pub fn measure(plan: Plan, size: u64, batch: u32) -> Result<Line, Error> {
    let network = Network::new(Config::null(1));
    let engine = || {
        let engine = Engine::builder().fabric(network.provider()).clock(network.clock());
        engine.drive(Drive::Caller).build()
    };
    let (here, there) = (engine()?, engine()?);
    let [source, target] = [&here, &there].map(|it| it.alloc(HostMemory::new(MEMORY_BYTES)));
    let (source, target) = (source?, target?);
    let window = target.window(0..MEMORY_BYTES as u64)?;
    let to = here.open(&window.descriptor())?;
    here.connect(&there.addresses()[0], PATIENCE)?;
    let size = size.min(MEMORY_BYTES as u64);
    let (from, to) = (source.slice(0..size)?, to.slice(0..size)?);
    let mut operation = |tally: &mut Tally| {
        let began = Instant::now();
        for _ in 0..BATCHES {
            if batch == 1 {
                done(here.write(&from, &to).wait())?;
                continue;
            }
            let mut writes = here.batch();
            writes.extend((0..batch).map(|_| here.write(&from, &to)));
            ended(&writes.submit())?;
        }
        let writes = BATCHES * u64::from(batch);
        let took = tally.worked(began, writes, writes * size);
        tally.latency(took / BATCHES as u32);
        Ok(())
    };
    let [measured] = in_turns(plan.time, WARM_UP / BATCHES, [&mut operation])?;
    let writes_per_s = measured.units_per_s();
    let posts = Some(Posts { writes_per_s, post_ns: 1e9 / writes_per_s });
    Ok(Line {
        fabric: "sim",
        size,
        batch,
        posts,
        working_set: MEMORY_BYTES as u64,
        ..Line::new("transport", "rate", Latency::Call, &measured, &plan)
    })
}

fn ended(transfers: &Transfers) -> Result<(), Error> {
    transfers.iter().try_for_each(|transfer| match transfer.outcome() {
        Some(Outcome::Done) => Ok(()),
        _ => done(transfer.wait()),
    })
}
