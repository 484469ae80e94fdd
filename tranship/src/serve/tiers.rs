//! The tiers below memory, from the configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, StatVfs, statvfs};
use tranship_cache::mover::Bell;
use tranship_cache::store::Outlook;
use tranship_cache::tier::codec::{Choice, Codec};
use tranship_cache::tier::cold::Cold;
use tranship_cache::tier::nvme::disk::{self, Target};
use tranship_cache::tier::nvme::{self, Now, Nvme};
use tranship_cache::tier::object::{self, Bucket};
use tranship_cache::tier::{Ingest, Level, Tier};
use tranship_cache::time::Wall;
use tranship_transport::Engine;
use tranship_transport::memory::Memory;

use super::TierInfo;
use crate::config::schema;
use crate::config::{CodecName, Config, DiskIo, IngestName, Maybe, Pairs};
use crate::units::{Size, human};

/// Bytes of a log that is made and has no size given, if so much is free.
const LOG_BYTES: Size = Size::gib(64);

/// Why a tier below memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The log's device.
    #[error("nvme.path: {0}")]
    Disk(#[from] disk::OpenError),
    /// What is on it.
    #[error("nvme.path {path}: {why}")]
    Log {
        /// Where.
        path: String,
        /// Why not.
        why: nvme::OpenError,
    },
    /// The size given is none that a log can have.
    #[error(
        "nvme.capacity {capacity} is no whole number of segments of {segment}, or less than {least}; use {fitting}"
    )]
    Capacity {
        /// As given.
        capacity: Size,
        /// As given.
        segment: Size,
        /// The shortest log with such segments.
        least: Size,
        /// The nearest that is.
        fitting: Size,
    },
    /// The bucket.
    #[error("object.url: {0}")]
    Bucket(#[from] object::OpenError),
}

/// What was opened.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The tiers, the fastest first.
    pub(crate) levels: Vec<Level>,
    /// The same, as they are told of at start.
    pub(crate) infos: Vec<TierInfo>,
}

/// Opens what is configured. Blocks will move between the tiers and `memories`; `bell` is rung when a
/// tier has something to tell, `outlook` says what is worth keeping below.
pub(crate) fn open(
    config: &Config,
    engine: &Engine,
    memories: &[Arc<Memory>],
    bell: &Bell,
    outlook: &Outlook,
) -> Result<Opened, TierError> {
    let mut opened = Opened::default();
    if let Some(path) = config.nvme.path.as_ref() {
        let (cold, info) = log(&config.nvme, path.path(), engine, memories, (bell, outlook))?;
        opened.levels.push(Level::new(Arc::new(cold), ingest(config.nvme.ingest)));
        opened.infos.push(info);
    }
    if let Some(url) = config.object.url.as_ref() {
        let (cold, info) = bucket(config, url.as_str(), bell)?;
        opened.levels.push(Level::new(Arc::new(cold), ingest(config.object.ingest)));
        opened.infos.push(info);
    }
    Ok(opened)
}

fn ingest(name: IngestName) -> Ingest {
    match name {
        IngestName::All => Ingest::All,
        IngestName::Hot => Ingest::Hot,
        IngestName::Evicted => Ingest::Evicted,
    }
}

fn log(
    config: &schema::Nvme,
    path: &Path,
    engine: &Engine,
    memories: &[Arc<Memory>],
    (bell, outlook): (&Bell, &Outlook),
) -> Result<(Nvme, TierInfo), TierError> {
    let bytes = log_bytes(config, path)?;
    let options = disk::Options::new(bytes)
        .create()
        .memories(memories.iter().cloned())
        .ours(nvme::is_ours)
        .engine(match config.io {
            DiskIo::Auto => disk::Engine::Auto,
            DiskIo::Uring => disk::Engine::Uring,
            DiskIo::Threads => disk::Engine::Threads,
        });
    let target = Target::new(path).unit(config.segment.bytes());
    let began = Instant::now();
    let disk = disk::open(&target, &options)?;
    let options = nvme::Options {
        segment_bytes: config.segment.bytes(),
        write_budget_per_day: config.write_budget.as_ref().map(|size| size.bytes()),
        ..nvme::Options::default()
    };
    let clock = Arc::new(move || Now { mono: began.elapsed().into(), wall: Wall::now() });
    let fresh = engine.id().0.to_be_bytes();
    let cold = Nvme::open(disk, &options, Box::new(outlook.clone()), fresh, clock, bell.notify())
        .map_err(|why| TierError::Log { path: path.display().to_string(), why })?;
    let figures = cold.figures();
    let found = match figures.recovered {
        0 => "no blocks yet".to_owned(),
        blocks => format!(
            "re-attached {} blocks in {}",
            human::count(blocks),
            human::time(Duration::from_micros(figures.recovery_us))
        ),
    };
    tracing::info!("nvme log {}: {found}; {}", cold.uuid(), cold.describe());
    let detail = format!("{}, {found}", path.display());
    let tier = Tier::Nvme.to_string();
    Ok((cold, TierInfo { tier, bytes: figures.capacity_bytes, detail }))
}

/// Bytes of the log: 0 for what is there.
fn log_bytes(config: &schema::Nvme, path: &Path) -> Result<u64, TierError> {
    // The configuration was checked: there are such segments.
    let segment = config.segment.bytes();
    let least = nvme::least_bytes(segment).unwrap_or(segment);
    if let Maybe::Set(capacity) = config.capacity {
        let whole = (capacity.bytes() / segment * segment).max(least);
        if whole == capacity.bytes() {
            return Ok(whole);
        }
        let (segment, least, fitting) = (config.segment, Size::new(least), Size::new(whole));
        return Err(TierError::Capacity { capacity, segment, least, fitting });
    }
    let there = rustix::fs::stat(path).ok();
    let kind = there.as_ref().map(|there| FileType::from_raw_mode(there.st_mode));
    let empty = there.as_ref().is_none_or(|there| there.st_size == 0);
    let is_new = match kind {
        Some(FileType::Directory) => !disk::file_in(path, 0).exists(),
        Some(FileType::RegularFile) | None => empty,
        Some(_) => false,
    };
    if !is_new {
        return Ok(0);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place =
        if kind == Some(FileType::Directory) { path } else { parent.unwrap_or(Path::new(".")) };
    // Where there is no such place, opening says so.
    let free = statvfs(place).map_or(0, |StatVfs { f_bavail, f_frsize, .. }| f_bavail * f_frsize);
    let bytes = LOG_BYTES.bytes().min(free / 2);
    Ok((bytes / segment * segment).max(least))
}

fn bucket(config: &Config, url: &str, bell: &Bell) -> Result<(Bucket, TierInfo), TierError> {
    let schema::Object { settings, node, capacity, pack, codec, read_only, .. } = &config.object;
    let node = node.as_ref().map_or_else(|| own_node(config), |node| node.as_str().to_owned());
    let mut options = object::Options::new(url, node);
    for (name, value) in settings.as_ref().into_iter().flat_map(Pairs::iter) {
        options = options.with(name, value);
    }
    options.capacity_bytes = capacity.bytes();
    options.pack_bytes = pack.bytes();
    options.buffer_bytes = options.buffer_bytes.max(2 * pack.bytes());
    options.read_only = *read_only;
    options.codec = match codec {
        CodecName::Off => Choice::Off,
        CodecName::Auto => Choice::WhenItPays(Codec::Zstd),
        CodecName::Zstd => Choice::Always(Codec::Zstd),
        CodecName::Lz4 => Choice::Always(Codec::Lz4),
    };
    let cold = Bucket::open(options, bell.notify())?;
    let figures = cold.figures();
    let found = match figures.blocks {
        0 => "no blocks yet".to_owned(),
        blocks => format!("{} blocks", human::count(blocks)),
    };
    tracing::info!("bucket: {found}; {}", cold.describe());
    let detail = format!("{}, {found}", cold.describe());
    let tier = Tier::Object.to_string();
    Ok((cold, TierInfo { tier, bytes: figures.capacity_bytes, detail }))
}

/// A name that this daemon has whenever it starts on this host with these addresses.
fn own_node(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let host: String = host.chars().map(fits).take(32).collect();
    // More than a key has, so that it is hashed.
    let listen = format!("a node of tranship at {}", config.serve.listen);
    let hash = tranship_cache::Key::from_digest(listen.as_bytes()).to_string();
    format!("{}-{}", host.trim_matches('-'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_of_one_host_have_names_of_their_own() {
        let name = |listen: &str| {
            let mut config = Config::default();
            config.serve.listen = listen.parse().unwrap();
            own_node(&config)
        };
        assert_eq!(name("tcp://node7:7420"), name("tcp://node7:7420"));
        assert_ne!(name("tcp://node7:7420"), name("tcp://node7:7421"));
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(name("unix:///run/tranship.sock").chars().all(fits));
    }

    #[test]
    fn a_capacity_that_is_advised_is_taken() {
        let mut config = Config::default().nvme;
        for segment in ["32KiB", "4MiB", "64MiB", "256MiB"] {
            config.segment = segment.parse().unwrap();
            for wrong in [1, 100 << 20, (300 << 20) + 4096, (5 << 30) - 1] {
                config.capacity = Maybe::Set(Size::new(wrong));
                let path = Path::new("/nowhere");
                let Err(TierError::Capacity { fitting, .. }) = log_bytes(&config, path) else {
                    assert_eq!(wrong, 100 << 20, "{segment}");
                    continue;
                };
                config.capacity = Maybe::Set(fitting);
                let bytes = log_bytes(&config, path).unwrap();
                assert!(nvme::least_bytes(config.segment.bytes()).unwrap() <= bytes);
            }
        }
    }
}
