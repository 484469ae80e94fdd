//! Writes of many pages each, scattered on both sides.
//!
//! Every page of the working set belongs to one write, in an order drawn by chance for each side;
//! the plans are made beforehand, as an engine makes them for its page tables. The limit is a copy
//! of one stretch as long as a write.

use std::time::Instant;

use tranship_transport::{Pages, Plan, Transfer};

use super::field::{Field, Way};
use super::{Bench, Op, against, done};
use crate::bench::line::{Latency, Paged};
use crate::bench::pages::{Pieces, shuffled};
use crate::bench::rounds::Tally;
use crate::bench::{Error, Line};

/// Where the orders of the pages start; any two numbers.
const SEEDS: [u64; 2] = [0x5eed, 0xfeed];

impl Bench {
    /// Measures writes of `pages` pages of `size` bytes, `batch` of them in flight.
    pub(super) fn paged(&self, size: u64, pages: u32, batch: u32) -> Result<Line, Error> {
        let bytes = size * u64::from(pages);
        let field = self.field(size, bytes)?;
        let plans = plans(&field, size, pages)?;
        let (here, there) = field.ends(&(0..field.bytes()))?;
        let mut next = plans.iter().cycle();
        let mut flying: Vec<(Instant, Transfer)> = Vec::with_capacity(batch as usize);
        let mut operation = |tally: &mut Tally| {
            let began = Instant::now();
            for _ in 0..batch {
                let plan = next.next().expect("at least one plan, round and round");
                let since = Instant::now();
                let transfer = self.engine.write_paged(&here, &there, plan).submit()?;
                tally.posted(since.elapsed());
                flying.push((since, transfer));
            }
            for (since, transfer) in flying.drain(..) {
                done(transfer.wait())?;
                tally.latency(since.elapsed());
            }
            tally.worked(began, u64::from(batch) * u64::from(pages), u64::from(batch) * bytes);
            Ok(())
        };
        let warm_up = (plans.len() as u64).div_ceil(u64::from(batch));
        let stretches = Pieces::new(bytes, field.bytes());
        let measured = self.beside(warm_up, field.limit(stretches, Way::To), &mut operation)?;
        let written = &measured.operation;
        let paged = Some(Paged {
            pages,
            pages_per_s: written.units_per_s(),
            post_p50_us: written.post_us(50.0),
            post_p99_us: written.post_us(99.0),
        });
        let op = Op::Paged { pages };
        let line = self.line(op, size, batch, Latency::Completion, written);
        Ok(Line { paged, ..against(&measured, &field, line) })
    }
}

/// One plan for every `pages` pages of the field.
fn plans(field: &Field, size: u64, pages: u32) -> Result<Vec<Plan>, Error> {
    let count = field.bytes() / size / u64::from(pages) * u64::from(pages);
    let [ours, theirs] = SEEDS.map(|seed| shuffled(count, seed));
    let part = pages as usize;
    let plan = |(ours, theirs): (&[u64], &[u64])| {
        let [ours, theirs] = [ours, theirs].map(|table| Pages::table(size, table.iter().copied()));
        Ok(Plan::new(ours?, theirs?)?)
    };
    ours.chunks_exact(part).zip(theirs.chunks_exact(part)).map(plan).collect()
}
