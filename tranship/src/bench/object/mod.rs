//! The object tier, against bare requests of the same client for the same bytes.

mod bare;
mod rig;
mod server;

use std::sync::Arc;
use std::time::Instant;

use object_store::PutPayload;
use object_store::path::Path;
use tempfile::TempDir;
use tranship_cache::identity::IdentityId;
use tranship_cache::tier::Span;
use tranship_cache::tier::cold::Record;
use tranship_cache::tier::object::Options;
use tranship_cache::{Key, Link};
use tranship_transport::Memory;

use self::bare::{Bare, Place};
use self::rig::{Rig, Work};
use self::server::Server;
use super::line::{Latency, Throughput};
use super::pages::{self, Pieces, shuffled};
use super::rounds::{Measured, Tally, in_turns};
use super::{Error, Line, Plan};

/// What the results count, for their readers.
pub const RULE: &str = "payload bytes count once; 1 GB is 10^9 bytes; limit: the same client without the tier, in turns with it; \
     of load: a ranged read for each block and its head, as many in flight, into the client's own buffers and \
     unchecked; of store: one object of as many payload bytes (no heads, index or manifest), in one request \
     below 16 MiB, else in parts of 8 MiB, 4 in flight; blocks are loaded in an order drawn by chance";

/// Bytes of a pack, as the tier makes them; less where the working set is.
const PACK_BYTES_MAX: u64 = 64 << 20;
/// Blocks of one step, at least; a step of more in flight has four times as many.
const STEP_BLOCKS: usize = 8;
/// Parts of an upload, as the tier makes them.
const PART_BYTES: usize = 8 << 20;
/// Where the order of loads starts; any number.
const SEED: u64 = 0x5eed;

/// An operation to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Whole blocks into spans, checked.
    Load {
        /// Bytes of a block.
        size: u64,
        /// Loads in flight.
        at_once: u32,
    },
    /// Blocks into one pack, and the pack and its manifest into the bucket.
    Store {
        /// Bytes of a block.
        size: u64,
    },
}

/// Where a bucket is.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub url: String,
    /// Settings of the service.
    pub settings: Vec<(String, String)>,
}

/// The measuring side.
pub struct Bench {
    plan: Plan,
    target: Target,
    name: &'static str,
    run: u64,
    _server: Option<Server>,
    _directory: Option<TempDir>,
}

impl Bench {
    /// Measures the bucket given; without one, that of a server that is started for the measurement; or
    /// else a directory.
    ///
    /// # Errors
    /// When the server does not start.
    pub fn new(plan: Plan, target: Option<Target>) -> Result<Self, Error> {
        let run = u64::from(std::process::id());
        let make = |target, name, server, directory| Self {
            plan,
            target,
            name,
            run,
            _server: server,
            _directory: directory,
        };
        if let Some(target) = target {
            let name = match target.url.split_once("://") {
                Some(("s3" | "s3a", _)) => "s3",
                Some(("gs", _)) => "gs",
                Some(("az" | "abfs" | "abfss", _)) => "az",
                _ => "directory",
            };
            return Ok(make(target, name, None, None));
        }
        if let Some(server) = Server::start()? {
            let target = Target { url: server.url(), settings: server.settings() };
            return Ok(make(target, server.name, Some(server), None));
        }
        let directory = TempDir::new()
            .map_err(|source| Error::Server { program: "a directory".to_owned(), source })?;
        let url = directory.path().display().to_string();
        Ok(make(Target { url, settings: Vec::new() }, "directory", None, Some(directory)))
    }

    fn pack_bytes(&self, size: u64) -> u64 {
        self.plan.working_set_for(size).clamp(64 << 10, PACK_BYTES_MAX)
    }

    /// Measures one operation.
    ///
    /// # Errors
    /// When the service refuses, or memory is short.
    pub fn measure(&self, op: Op) -> Result<Line, Error> {
        let (name, size, batch) = match op {
            Op::Load { size, at_once } => ("load", size, at_once),
            Op::Store { size } => ("store", size, 1),
        };
        let url = format!("{}/bench-{:x}-{name}-{size}-{batch}", self.target.url, self.run);
        let mut options = Options::new(&url, "bench");
        options.settings.clone_from(&self.target.settings);
        (options.poll, options.collect) = Default::default();
        options.pack_bytes = self.pack_bytes(size);
        let (bare, prefix) = Bare::new(&url, &self.target.settings, options.threads)?;
        let mut rig = Rig::open(options)?;
        let measured = match op {
            Op::Load { size, at_once } => {
                self.load(&mut rig, &bare, &prefix, size, at_once as usize)
            }
            Op::Store { size } => self.store(&mut rig, &bare, &prefix, size),
        };
        rig.close();
        let removed = bare.remove(&prefix);
        let [limit, tier] = measured?;
        removed?;
        Ok(Line {
            fabric: self.name,
            size,
            batch,
            throughput: Some(Throughput::of(&tier, &limit)),
            limit_p50_us: Some(limit.percentile_us(50.0)),
            limit_p99_us: Some(limit.percentile_us(99.0)),
            working_set: self.plan.working_set_for(size),
            ..Line::new("object", name, Latency::Call, &tier, &self.plan)
        })
    }

    /// The limit and the operation.
    fn load(
        &self,
        rig: &mut Rig,
        bare: &Bare,
        prefix: &Path,
        size: u64,
        at_once: usize,
    ) -> Result<[Measured; 2], Error> {
        let bytes = self.plan.working_set_for(size);
        let pieces = Pieces::new(size, bytes);
        let memory = pages::memory(bytes)?;
        let work = blocks(&memory, pieces, 0);
        rig.store(&work, &mut Tally::unmeasured())?;
        let found = bare.places(&prefix.clone().join("v1").join("packs"))?;
        let order = shuffled(work.len() as u64, SEED);
        let work: Vec<Work> = order.into_iter().map(|at| work[at as usize].clone()).collect();
        let place = |work: &Work| -> Result<Place, Error> {
            let found = found.iter().find(|(name, _)| *name == work.record.name());
            found.map(|(_, place)| place.clone()).ok_or(Error::Request)
        };
        let places = work.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let step = (STEP_BLOCKS.max(4 * at_once)).min(work.len());
        let steps = work.len().div_ceil(step) as u64;
        let (mut at, mut limit_at) = (0, 0);
        let mut limit = |tally: &mut Tally| {
            let places = turn(&places, &mut limit_at, step);
            let began = Instant::now();
            bare.get(places, at_once, tally)?;
            tally.worked(began, places.len() as u64, places.len() as u64 * size);
            Ok(())
        };
        let mut load = |tally: &mut Tally| {
            let work = turn(&work, &mut at, step);
            let began = Instant::now();
            rig.load(work, at_once, tally)?;
            tally.worked(began, work.len() as u64, work.len() as u64 * size);
            Ok(())
        };
        in_turns(self.plan.time, steps, [&mut limit, &mut load])
    }

    /// The limit and the operation.
    fn store(
        &self,
        rig: &mut Rig,
        bare: &Bare,
        prefix: &Path,
        size: u64,
    ) -> Result<[Measured; 2], Error> {
        // As many blocks as one pack has room for beside their heads.
        let count = (self.pack_bytes(size) / (size + size / 64 + 256)).max(1);
        let pieces = Pieces::new(size, count * size.next_multiple_of(64));
        let memory = pages::memory(count * size.next_multiple_of(64))?;
        let (mut round, mut object) = (0_u32, 0_u32);
        let bytes = vec![0x5a_u8; (count * size) as usize];
        // In one request what the tier sends in one.
        let part_bytes = if bytes.len() < 2 * PART_BYTES { bytes.len() } else { PART_BYTES };
        let parts: Vec<PutPayload> =
            bytes.chunks(part_bytes).map(|part| PutPayload::from(part.to_vec())).collect();
        let mut limit = |tally: &mut Tally| {
            object += 1;
            let path = prefix.clone().join(format!("limit-{object}"));
            let began = Instant::now();
            bare.put(&path, &parts, tally)?;
            tally.worked(began, 1, count * size);
            // Not measured.
            bare.remove(&path)
        };
        let mut store = |tally: &mut Tally| {
            round += 1;
            // Blocks that are not there yet; not measured.
            let work = blocks(&memory, pieces, round);
            let began = Instant::now();
            rig.store(&work, tally)?;
            tally.worked(began, count, count * size);
            Ok(())
        };
        in_turns(self.plan.time, 1, [&mut limit, &mut store])
    }
}

/// The blocks in a memory, under keys that no other round has.
fn blocks(memory: &Arc<Memory>, pieces: Pieces, round: u32) -> Vec<Work> {
    let identity = IdentityId::from_bytes([7; 16]);
    let block = |position: u64| {
        let span = Span::new(Arc::clone(memory), pieces.at(position));
        let position = position as u32;
        let key = Key::from_digest(format!("{round} {position}").as_bytes());
        let (len, checksum) = (span.len() as u64, span.checksum());
        let link = Link { key, parent: None, position };
        Work { record: Record { identity, link, len, checksum, expires: None }, span }
    };
    (0..pieces.count()).map(block).collect()
}

/// The next `step` of all, from the first again where there are not so many left.
fn turn<'a, T>(all: &'a [T], at: &mut usize, step: usize) -> &'a [T] {
    if *at + step > all.len() {
        *at = 0;
    }
    let some = &all[*at..*at + step];
    *at += step;
    some
}
