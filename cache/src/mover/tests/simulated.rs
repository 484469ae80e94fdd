//! A tier below memory whose every answer the test decides, by a seed: when it comes, and whether it
//! is a success.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::tier::cold::{Cold, Done, Failure, Figures, Found, Health, Job, Mark, Name, Record};
use crate::tier::cold::{Refusal, Refused};
use crate::tier::{Span, Tier};
use crate::time::Wall;

/// How a simulated tier behaves, percent of the jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Not taken, for want of room in the queue.
    pub(super) full: u32,
    /// Failed, of those that were taken.
    pub(super) failing: u32,
    /// Found damaged, of loads.
    pub(super) damaged: u32,
}

struct Held {
    record: Record,
    bytes: Vec<u8>,
}

impl Held {
    fn found(&self) -> Found {
        let Record { len, checksum, expires, .. } = self.record;
        Found { len, checksum, expires, mark: Mark::default() }
    }
}

struct State {
    rng: Pcg64Mcg,
    weather: Weather,
    blocks: HashMap<Name, Held>,
    jobs: Vec<Job>,
    done: Vec<Done>,
    wall: Wall,
    /// Blocks kept at most; one more displaces any other.
    blocks_max: usize,
}

pub(super) struct Simulated {
    tier: Tier,
    state: Mutex<State>,
}

impl Simulated {
    pub(super) fn new(tier: Tier, seed: u64, weather: Weather, blocks_max: usize) -> Self {
        let rng = Pcg64Mcg::seed_from_u64(seed);
        let (blocks, jobs, done) = Default::default();
        let wall = Wall(1_000_000);
        let state = State { rng, weather, blocks, jobs, done, wall, blocks_max };
        Self { tier, state: Mutex::new(state) }
    }

    /// Ends some of the jobs, in any order; whether any is left.
    pub(super) fn work(&self, most: usize) -> bool {
        let mut state = self.state.lock().unwrap();
        for _ in 0..most {
            if state.jobs.is_empty() {
                break;
            }
            let jobs = state.jobs.len();
            let at = state.rng.random_range(0..jobs);
            let job = state.jobs.swap_remove(at);
            state.end(job);
        }
        !state.jobs.is_empty()
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.lock().unwrap().weather = weather;
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().unwrap().blocks.len()
    }
}

impl State {
    fn percent(&mut self, of: u32) -> bool {
        self.rng.random_range(0..100) < of
    }

    fn end(&mut self, job: Job) {
        let failing = self.percent(self.weather.failing);
        let io = || Failure::Io("simulated".to_owned());
        let (token, result): (_, Result<Option<Record>, Failure>) = match job {
            Job::Store { token, .. } | Job::Load { token, .. } | Job::Sync { token } if failing => {
                (token, Err(io()))
            }
            Job::Store { token, record, from, .. } => {
                (token, self.store(record, &from).map(|()| None))
            }
            Job::Load { token, name, range, into, .. } => {
                let damaged = self.percent(self.weather.damaged);
                let range = range.start as usize..range.end as usize;
                let result = match self.blocks.get(&name) {
                    None => Err(Failure::Gone),
                    Some(_) if damaged => {
                        // What a damaged block left in memory must never be seen.
                        into.write_at(0, &vec![0xEE; into.len()]);
                        self.blocks.remove(&name);
                        Err(Failure::Corrupt)
                    }
                    Some(held) => {
                        into.write_at(0, &held.bytes[range]);
                        Ok(Some(held.record))
                    }
                };
                (token, result)
            }
            Job::Sync { token } => (token, Ok(None)),
            Job::Remove { .. } | Job::Clear { .. } => unreachable!("done as they are taken"),
        };
        self.done.push(Done { token, result });
    }

    fn store(&mut self, record: Record, from: &Span) -> Result<(), Failure> {
        let mut bytes = vec![0; from.len()];
        from.read_at(0, &mut bytes);
        assert_eq!(from.checksum(), record.checksum, "bytes changed on their way down");
        assert_eq!(bytes.len() as u64, record.len);
        if self.blocks.len() >= self.blocks_max
            && let Some(name) = self.blocks.keys().min().copied()
        {
            self.blocks.remove(&name);
        }
        self.blocks.insert(record.name(), Held { record, bytes });
        Ok(())
    }
}

impl Cold for Simulated {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn find(&self, name: &Name) -> Option<Found> {
        let state = self.state.lock().unwrap();
        let held = state.blocks.get(name)?;
        held.record.expires.is_none_or(|at| at > state.wall).then(|| held.found())
    }

    fn submit(&self, job: Job) -> Result<(), Box<Refused>> {
        let mut state = self.state.lock().unwrap();
        let full = state.weather.full;
        let forgets = matches!(job, Job::Remove { .. } | Job::Clear { .. });
        if !forgets && state.percent(full) {
            return Err(Box::new(Refused { job, why: Refusal::Full }));
        }
        match job {
            Job::Remove { name } => drop(state.blocks.remove(&name)),
            Job::Clear { identity } => state.blocks.retain(|name, _| name.identity != identity),
            job => state.jobs.push(job),
        }
        Ok(())
    }

    fn finished(&self, out: &mut Vec<Done>) {
        out.append(&mut self.state.lock().unwrap().done);
    }

    fn visit(&self, _from: u64, visit: &mut dyn FnMut(&Name, &Found)) -> Option<u64> {
        self.state
            .lock()
            .unwrap()
            .blocks
            .iter()
            .for_each(|(name, held)| visit(name, &held.found()));
        None
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn figures(&self) -> Figures {
        Figures { blocks: self.len() as u64, ..Figures::default() }
    }

    fn close(&self, _within: Duration) {}
}
