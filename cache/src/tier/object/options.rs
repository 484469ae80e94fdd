//! What a bucket is opened with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::codec::Choice;
use super::breaker::BreakerOptions;
use super::clock::{Clock, SystemClock};
use super::error::OpenError;
use super::format::{NODE_BYTES_MAX, is_node};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How a request that failed is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Most attempts of a load, and of a part of an upload in one go.
    pub attempts: u32,
    /// Longest pause before the second attempt; the least is half of it, and each one after is twice
    /// as long.
    pub pause: Duration,
    /// Longest pause between two attempts.
    pub pause_max: Duration,
}

/// Everything about a bucket; `Options::new` has the defaults.
#[derive(Clone)]
pub struct Options {
    /// Where it is: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `file:///DIRECTORY` or a plain path.
    pub url: String,
    /// Settings of the service by the names that `object_store` gives them (`endpoint`, `region`,
    /// `access_key_id`, …); what is not here comes from the environment.
    pub settings: Vec<(String, String)>,
    /// Names this daemon in the bucket; must stay the same when it starts again, and be nobody else's.
    pub node: String,
    /// Most bytes of this node's packs; the least worth leave when they are more.
    pub capacity_bytes: u64,
    /// Most memory of the index.
    pub index_bytes_max: u64,
    /// A pack is closed when it has so many bytes.
    pub pack_bytes: u64,
    /// A pack is closed when its first block has waited so long.
    pub pack_age: Duration,
    /// Most bytes of blocks that are here and not in the bucket; beyond that, stores are refused.
    pub buffer_bytes: u64,
    /// Bytes of a part of an upload; what is shorter than two is sent in one.
    pub part_bytes: u64,
    /// Compression.
    pub codec: Choice,
    /// Bytes of an element, for the codec: 1, 2, 4 or 8.
    pub codec_width: u8,
    /// Jobs of a lane that may be under way; beyond that they are refused.
    pub jobs_max: usize,
    /// Requests in flight for blocks that somebody waits for.
    pub demand_requests: usize,
    /// Requests in flight for blocks that somebody will ask for.
    pub prefetch_requests: usize,
    /// Requests in flight that write.
    pub write_requests: usize,
    /// Blocks of a pack are read together when at most so many bytes are between them…
    pub gap_bytes: u64,
    /// …and no more than this is read at once.
    pub read_bytes_max: u64,
    /// A request that has brought nothing for so long has failed.
    pub silence: Duration,
    /// The slowest service that is waited for, bytes a second: an upload may take `silence`, and its
    /// bytes at this rate.
    pub write_bytes_per_s_min: u64,
    /// A pack that could not be uploaded for so long is given up, and its blocks with it.
    pub upload_within: Duration,
    /// How what failed is tried again.
    pub retries: Retries,
    /// When nothing is asked any more.
    pub breaker: BreakerOptions,
    /// How often to look for packs of other nodes; zero for only when asked to.
    pub poll: Duration,
    /// How often to look for what can go; zero for only when asked to.
    pub collect: Duration,
    /// Folders of packs, of 256, that are listed each time.
    pub collect_shards: u16,
    /// A pack that no manifest names is nobody's after this time, and not before.
    pub grace: Duration,
    /// What leaves a manifest of this node stays in the bucket for so long, so that others hear of it.
    pub linger: Duration,
    /// A node that has shown no sign of life for so long is gone, and what it told with it; zero for
    /// never.
    pub abandoned: Duration,
    /// A pack of which no more than this part (in hundredths) can still be found is written again.
    pub compact_below: u8,
    /// Never write.
    pub read_only: bool,
    /// When writing turns out to be forbidden, go on without.
    pub or_read_only: bool,
    /// Opening may take so long.
    pub open_within: Duration,
    /// Threads for requests.
    pub threads: usize,
    /// What tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where pauses begin to be drawn.
    pub seed: u64,
}

impl Options {
    /// The defaults for a place and a node.
    #[must_use]
    pub fn new(url: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            settings: Vec::new(),
            node: node.into(),
            capacity_bytes: 1 << 40,
            index_bytes_max: 1 << 30,
            pack_bytes: 64 * MIB,
            pack_age: Duration::from_secs(10),
            buffer_bytes: 256 * MIB,
            part_bytes: 8 * MIB,
            codec: Choice::Off,
            codec_width: 2,
            jobs_max: 4096,
            demand_requests: 32,
            prefetch_requests: 8,
            write_requests: 4,
            gap_bytes: 128 * KIB,
            read_bytes_max: 8 * MIB,
            silence: Duration::from_secs(10),
            write_bytes_per_s_min: MIB,
            upload_within: Duration::from_secs(300),
            retries: Retries {
                attempts: 4,
                pause: Duration::from_millis(100),
                pause_max: Duration::from_secs(5),
            },
            breaker: BreakerOptions::default(),
            poll: Duration::from_secs(60),
            collect: Duration::from_secs(60),
            collect_shards: 16,
            grace: Duration::from_secs(3600),
            linger: Duration::from_secs(600),
            abandoned: Duration::from_secs(7 * 24 * 3600),
            compact_below: 40,
            read_only: false,
            or_read_only: true,
            open_within: Duration::from_secs(30),
            threads: 2,
            clock: Arc::new(SystemClock),
            seed: 0x7472_616e_7368_6970,
        }
    }

    /// Adds a setting of the service.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// What no single value shows.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let wrong = |text: String| Err(OpenError::Option(text));
        if !is_node(&self.node) {
            return wrong(format!(
                "the node's name {:?} is not 1 to {NODE_BYTES_MAX} letters, digits and -_. that do not \
                 begin with a dot",
                self.node
            ));
        }
        if self.pack_bytes < 64 * KIB || self.pack_bytes > 1 << 30 {
            return wrong(format!("a pack of {} bytes; use 64 KiB to 1 GiB", self.pack_bytes));
        }
        if self.part_bytes < 64 * KIB {
            return wrong(format!("parts of {} bytes; use 8 MiB", self.part_bytes));
        }
        if self.buffer_bytes < self.pack_bytes {
            return wrong(format!(
                "room for {} bytes of uploads is less than a pack of {}; raise it",
                self.buffer_bytes, self.pack_bytes
            ));
        }
        if self.grace < 2 * self.upload_within {
            return wrong(format!(
                "a grace of {:?} is shorter than two uploads of {:?}; raise it",
                self.grace, self.upload_within
            ));
        }
        if !self.abandoned.is_zero() && self.abandoned < 2 * self.grace {
            return wrong(format!(
                "nodes are given up after {:?}, less than two times the grace of {:?}; raise it",
                self.abandoned, self.grace
            ));
        }
        let requests = [self.demand_requests, self.prefetch_requests, self.write_requests];
        if requests.contains(&0) || self.threads == 0 || self.jobs_max == 0 {
            return wrong(
                "no requests, no jobs or no threads; use at least one of each".to_owned(),
            );
        }
        if !super::super::codec::is_width(self.codec_width) {
            return wrong(format!(
                "elements of {} bytes for the codec; use 1, 2, 4 or 8",
                self.codec_width
            ));
        }
        Ok(())
    }
}

/// Shows no values of settings: some are secrets.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Options")
            .field("url", &super::place::without_secrets(&self.url))
            .field("settings", &names)
            .field("node", &self.node)
            .field("capacity_bytes", &self.capacity_bytes)
            .field("pack_bytes", &self.pack_bytes)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}
