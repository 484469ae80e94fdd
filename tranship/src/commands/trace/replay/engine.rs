//! One engine process of a replay.
//!
//! It does what an inference engine does with a prompt: looks up its blocks, loads what hits into
//! memory of its own, computes the rest (the content of a block follows from its id) and stores it.
//! What was loaded is compared with what it should be, byte by byte. Each request ends in one line
//! on standard output, a `Report`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tranship_cache::catalog::Presence;
use tranship_cache::client::{BlockResult, Cache, CommitFailed, Grant, ReadError};
use tranship_cache::identity::Geometry;
use tranship_cache::tier::Tier;
use tranship_cache::{Chain, Identity, Key, Link, client};

use super::super::super::{Context, Error, target};
use super::figures::{Counts, Misses, Played};
use crate::config::{Addresses, Config};
use crate::exit::Exit;
use crate::net::{Dial, DialError};
use crate::orphan;
use crate::presets::{Attention, BLOCK_TOKENS, Preset};
use crate::trace::plan::{Block, Planned, Share};
use crate::trace::{Reader, content};

/// Memory that an engine loads into and stores from, bytes; one block at least.
const POOL_BYTES: u64 = 64 << 20;
/// Blocks in it at most: no request to the daemon names more.
const POOL_BLOCKS_MAX: u64 = 256;
/// How long a block that another engine is storing is waited for.
const WAIT: Duration = Duration::from_millis(100);
/// How long a block that comes up from a tier below is waited for.
const WAIT_BELOW: Duration = Duration::from_secs(5);
/// How long room is waited for that the daemon makes by moving blocks to a tier below.
const WAIT_ROOM: Duration = Duration::from_secs(5);
/// Such room comes soon; where the daemon says later, it is full.
const ROOM_SOON: Duration = Duration::from_millis(5);
/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of the hidden `trace replay-engine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Trace to replay
    #[arg(long)]
    pub trace: PathBuf,
    /// Which engine this is
    #[arg(long)]
    pub engine: usize,
    /// Of how many
    #[arg(long)]
    pub engines: usize,
    /// Model
    #[arg(long)]
    pub model: String,
    /// Bytes of one token
    #[arg(long)]
    pub token_bytes: u64,
    /// The daemon
    #[arg(long)]
    pub connect: Addresses,
    /// File with the secret of the fabrics between hosts
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// Tenant to act for
    #[arg(long)]
    pub tenant: String,
    /// First request to play
    #[arg(long)]
    pub from: u64,
    /// Stop before this request
    #[arg(long)]
    pub until: u64,
    /// How fast the timestamps pass; as fast as possible without
    #[arg(long)]
    pub speed: Option<f64>,
    /// Where the trace's clock stands, milliseconds
    #[arg(long, default_value_t = 0)]
    pub clock_ms: u64,
    /// Process without which this one ends at once
    #[arg(long)]
    pub parent: u32,
}

/// One line of an engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// A request was played.
    Played(Box<Played>),
    /// All were; the engine's own memory, bytes.
    Ended {
        /// Without the arena.
        own_bytes: u64,
    },
}

impl Args {
    pub(in super::super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        orphan::end_with(self.parent)
            .map_err(|source| Error::System { doing: "watch the parent process", source })?;
        let loaded = context.config_with(None)?;
        context.start_logging(&loaded)?;
        let share = Share::new(self.engine, self.engines)
            .ok_or_else(|| Error::Usage(format!("no engine {}", self.engine)))?;
        let mut engine = Engine::new(self, loaded.config)?;
        let pace = self.speed.map(|speed| Pace::new(speed, self.clock_ms));
        let mut stdout = io::stdout().lock();
        let until = usize::try_from(self.until).unwrap_or(usize::MAX);
        for planned in share.requests(Reader::open(&self.trace)?.take(until)) {
            let planned = planned?;
            if planned.index < self.from {
                continue;
            }
            if let Some(pace) = &pace {
                pace.wait(planned.at_ms);
            }
            tell(&mut stdout, &Report::Played(Box::new(engine.play(&planned))))?;
        }
        let own_bytes =
            super::coordinator::memory(std::process::id()).map_or(0, |memory| memory.own);
        tell(&mut stdout, &Report::Ended { own_bytes })?;
        Ok(Exit::Done)
    }
}

/// One write a line, so that a killed engine leaves no half of one but the last.
fn tell(stdout: &mut impl Write, report: &Report) -> Result<(), Error> {
    let mut line = serde_json::to_vec(report).map_err(io::Error::other)?;
    line.push(b'\n');
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}

/// Holds requests back until their time has come.
struct Pace {
    began: Instant,
    speed: f64,
    clock_ms: u64,
}

impl Pace {
    fn new(speed: f64, clock_ms: u64) -> Self {
        Self { began: Instant::now(), speed, clock_ms }
    }

    fn wait(&self, at_ms: u64) {
        let ahead_ms = at_ms.saturating_sub(self.clock_ms) as f64 / self.speed;
        let due = Duration::try_from_secs_f64(ahead_ms / 1e3).unwrap_or(Duration::MAX);
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}

/// An engine: a connection that may come and go, and memory of its own.
struct Engine {
    dial: Dial,
    token: String,
    name: String,
    identity: Identity,
    cache: Option<Cache>,
    block_bytes: u64,
    pool: Vec<Box<[u8]>>,
}

impl Engine {
    fn new(args: &Args, config: Config) -> Result<Self, Error> {
        let preset = Preset::find(&args.model)?;
        let block_bytes = args.token_bytes * u64::from(BLOCK_TOKENS);
        let blocks = (POOL_BYTES / block_bytes).clamp(1, POOL_BLOCKS_MAX);
        let len = usize::try_from(block_bytes)
            .map_err(|_| Error::Usage(format!("blocks of {block_bytes} bytes are too large")))?;
        Ok(Self {
            token: target::token(&config, &args.tenant),
            dial: target::dial(config, Some(&args.connect), args.token_file.as_deref())?,
            name: format!("replay engine {}", args.engine),
            identity: identity(preset, args),
            cache: None,
            block_bytes,
            // Not zeroes, whose pages the kernel would only fill in during the first load.
            pool: (0..blocks).map(|_| vec![0xa5; len].into_boxed_slice()).collect(),
        })
    }

    /// The daemon, if it is there; connected to at first use and whenever it was lost at start.
    fn cache(&mut self) -> Result<Cache, DialError> {
        if let Some(cache) = &self.cache {
            return Ok(cache.clone());
        }
        let client = self.dial.connect(|client| {
            client
                .name(self.name.as_str())
                .tenant(self.identity.tenant.as_str(), self.token.as_str())
                .timeout(TIMEOUT)
        })?;
        Ok(self.cache.insert(client.cache(self.identity.clone())).clone())
    }

    fn play(&mut self, planned: &Planned) -> Played {
        let blocks = planned.reusable();
        let mut chain = Chain::new(&self.identity);
        let links: Vec<Link> =
            blocks.iter().map(|block| chain.push(&block.hash_id.to_le_bytes())).collect();
        let lookups = blocks.len() as u64;
        let counts = Counts { lookups, ..Counts::default() };
        let mut played = Played { index: planned.index, counts, ..Played::default() };
        if !blocks.is_empty() {
            let loaded = self.load(&mut played, blocks, &links);
            self.store(&mut played, &blocks[loaded..], &links[loaded..]);
        }
        played
    }

    /// Looks blocks up and loads the usable prefix; how many were loaded. The others are counted
    /// as misses.
    fn load(&mut self, played: &mut Played, blocks: &[Block], links: &[Link]) -> usize {
        let keys: Vec<Key> = links.iter().map(|link| link.key).collect();
        let began = Instant::now();
        let found = self.cache().and_then(|cache| Ok((cache.lookup(&keys)?, cache)));
        let (found, cache) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "lookup failed: a miss");
                played.counts.misses.unavailable += keys.len() as u64;
                return 0;
            }
        };
        played.lookup_ns = Some(nanos(began));
        // Blocks that another engine is storing right now are worth a short wait.
        let coming = found.presence[found.prefix..]
            .iter()
            .take_while(|presence| matches!(presence, Presence::InFlight | Presence::Resident(_)));
        let wanted = found.prefix + coming.count();
        let absent = (keys.len() - wanted) as u64;
        played.counts.misses.absent += absent;
        if wanted == 0 {
            return 0;
        }
        let below =
            |presence: &Presence| matches!(presence, Presence::Resident(t) if *t != Tier::Dram);
        let wait = match found.presence[..wanted].iter().any(below) {
            true => WAIT_BELOW,
            false if wanted > found.prefix => WAIT,
            false => Duration::ZERO,
        };
        let mut timer = Timer::default();
        let (loaded, why) = self.load_prefix(&cache, &keys[..wanted], blocks, wait, &mut timer);
        for presence in &found.presence[..loaded] {
            match presence {
                Presence::Resident(tier) => played.counts.hits[*tier as usize] += 1,
                _ => {
                    played.counts.hits[Tier::Dram as usize] += 1;
                    played.counts.waited += 1;
                }
            }
        }
        if loaded > 0 {
            played.load_ns = Some(timer.nanos);
            played.counts.loaded_bytes = loaded as u64 * self.block_bytes;
        }
        // A block behind a break in the prefix is of no use either.
        why.count(&mut played.counts.misses, (wanted - loaded) as u64);
        loaded
    }

    /// Loads blocks into the pool until one is not usable: how many were, and why no more.
    fn load_prefix(
        &mut self,
        cache: &Cache,
        keys: &[Key],
        blocks: &[Block],
        wait: Duration,
        timer: &mut Timer,
    ) -> (usize, Break) {
        let mut loaded = 0;
        // No more than the pool takes at once: all of a long prompt may not fit into the daemon's memory.
        for (keys, blocks) in keys.chunks(self.pool.len()).zip(blocks.chunks(self.pool.len())) {
            let first = loaded;
            let lease = match timer.time(|| cache.lease(keys, wait)) {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::debug!(%error, "lease failed: a miss");
                    return (loaded, Break::Unavailable);
                }
            };
            let copied = timer.time(|| {
                for ((index, (_, result)), buffer) in
                    lease.results().enumerate().zip(&mut self.pool)
                {
                    // What is not ready is refused here.
                    lease.copy_to(index, buffer).map_err(|error| Break::of(result, &error))?;
                    loaded += 1;
                }
                Ok(())
            });
            let arrived = blocks.iter().zip(&self.pool).take(loaded - first);
            for (index, (block, buffer)) in (first..).zip(arrived) {
                if let Err(offset) = content::verify(buffer, block.hash_id) {
                    tracing::error!(block = block.hash_id, offset, "wrong bytes passed a checksum");
                    return (index, Break::Corrupt);
                }
            }
            if let Err(why) = copied {
                return (loaded, why);
            }
        }
        (loaded, Break::None)
    }

    /// Computes the blocks that missed, and stores them.
    fn store(&mut self, played: &mut Played, blocks: &[Block], links: &[Link]) {
        let mut timer = Timer::default();
        let mut refused = false;
        for (blocks, links) in blocks.chunks(self.pool.len()).zip(links.chunks(self.pool.len())) {
            for (block, buffer) in blocks.iter().zip(&mut self.pool) {
                content::fill(buffer, block.hash_id);
            }
            let rest = blocks.len() as u64;
            if refused {
                // Behind a block that found no room these would be of no use.
                played.counts.stores.refused += rest;
                continue;
            }
            let before = played.counts.stores.sum();
            let stored = self
                .cache()
                .and_then(|cache| Ok(timer.time(|| self.store_all(&cache, played, links))?));
            match stored {
                Ok(room) => refused = !room,
                Err(error) => {
                    tracing::debug!(%error, "store failed");
                    played.counts.stores.unavailable +=
                        rest - (played.counts.stores.sum() - before);
                }
            }
        }
        if played.counts.stores.stored > 0 {
            played.store_ns = Some(timer.nanos);
            played.counts.stored_bytes = played.counts.stores.stored * self.block_bytes;
        }
    }

    /// Stores the blocks in the pool; whether there was room for all. Whatever is not counted when
    /// it fails was not stored.
    fn store_all(
        &self,
        cache: &Cache,
        played: &mut Played,
        links: &[Link],
    ) -> Result<bool, client::Error> {
        let began = Instant::now();
        let mut stored = 0;
        loop {
            let refused = self.store_some(cache, played, links, &mut stored)?;
            match refused {
                None => return Ok(true),
                Some(Some(retry)) if retry <= ROOM_SOON && began.elapsed() < WAIT_ROOM => {
                    thread::sleep(retry);
                }
                Some(_) => {
                    played.counts.stores.refused += (links.len() - stored) as u64;
                    return Ok(false);
                }
            }
        }
    }

    /// Stores blocks from the `stored`-th on until one is refused for want of room: when to ask again, if
    /// that may help. None when there was room for all.
    fn store_some(
        &self,
        cache: &Cache,
        played: &mut Played,
        links: &[Link],
        stored: &mut usize,
    ) -> Result<Option<Option<Duration>>, client::Error> {
        let rest = &links[*stored..];
        let wanted: Vec<_> = rest.iter().map(|link| (*link, self.block_bytes)).collect();
        let mut filled = Vec::with_capacity(rest.len());
        let mut refused = None;
        let stores = &mut played.counts.stores;
        for (grant, bytes) in cache.reserve(&wanted)?.into_iter().zip(&self.pool[*stored..]) {
            if refused.is_some() {
                break;
            }
            match grant {
                Grant::Granted(reservation) => match reservation.write(bytes) {
                    Ok(block) => filled.push(block),
                    Err(error) => {
                        tracing::debug!(%error, "fill failed");
                        stores.unavailable += 1;
                    }
                },
                Grant::Exists => stores.existing += 1,
                Grant::InFlight => stores.in_flight += 1,
                Grant::Refused { why, retry_after } => {
                    tracing::debug!(why, "refused");
                    refused = Some(retry_after);
                    continue;
                }
            }
            *stored += 1;
        }
        for committed in cache.commit(filled)? {
            match committed {
                Ok(()) => stores.stored += 1,
                Err(CommitFailed::Mismatch { .. }) => stores.mismatched += 1,
                Err(CommitFailed::Refused { .. }) => stores.refused += 1,
                Err(_) => stores.unavailable += 1,
            }
        }
        Ok(refused)
    }
}

/// Why a prefix could not be loaded further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    None,
    Gone,
    Late,
    Caught,
    Unavailable,
    Corrupt,
}

impl Break {
    fn of(result: BlockResult, error: &ReadError) -> Self {
        match (result, error) {
            (BlockResult::Late, _) => Self::Late,
            (BlockResult::Corrupt, _) | (_, ReadError::Corrupt { .. }) => Self::Caught,
            (_, ReadError::Transfer { .. }) => Self::Unavailable,
            _ => Self::Gone,
        }
    }

    fn count(self, misses: &mut Misses, blocks: u64) {
        match self {
            Self::None => {}
            Self::Gone => misses.gone += blocks,
            Self::Late => misses.late += blocks,
            Self::Caught => misses.caught += blocks,
            Self::Unavailable => misses.unavailable += blocks,
            Self::Corrupt => misses.corrupt += blocks,
        }
    }
}

/// Adds up the time of what is worth timing.
#[derive(Default)]
struct Timer {
    nanos: u64,
}

impl Timer {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.nanos += nanos(began);
        result
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What the blocks of this replay are; two replays share blocks only if they agree in it.
fn identity(preset: &Preset, args: &Args) -> Identity {
    let (kv_heads, head_dim, layout) = match preset.attention {
        Attention::Grouped { kv_heads, head_dim } => (kv_heads, head_dim, "nhd"),
        Attention::Latent { rank, rope_dim } => (1, rank + rope_dim, "mla"),
    };
    let geometry = Geometry { layers: preset.layers, kv_heads, head_dim, ..Geometry::default() };
    let trace = args.trace.file_name().unwrap_or_default().to_string_lossy();
    let revision = format!("replay of {trace} at {} bytes a token", args.token_bytes);
    let mut identity = Identity::new(preset.name, revision, "bf16", geometry, BLOCK_TOKENS);
    identity.layout = layout.to_owned();
    identity.tenant.clone_from(&args.tenant);
    identity
}
