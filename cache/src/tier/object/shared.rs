//! What all parts of the tier work on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hashbrown::HashMap;

use super::super::cold::{Failure, Name};
use super::ended::{Ask, Ended};
use super::gates::Right;
use super::index::{Index, Serial};
use super::options::Options;
use super::paths::{ManifestName, PackId, Paths};
use super::refresh::Told;
use super::removed::{Queue, Removed};
use super::service::Service;
use crate::identity::IdentityId;
use crate::sync::{OBJECT, Ranked};
use crate::time::Wall;

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: AtomicU64,
    pub(super) stored_bytes: AtomicU64,
    pub(super) loaded: AtomicU64,
    pub(super) loaded_bytes: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) reinserted: AtomicU64,
    pub(super) recovered: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Packs that are on their way into the bucket, and who waits for them.
#[derive(Default)]
pub(super) struct Uploads {
    next: u64,
    under_way: BTreeSet<u64>,
    syncs: Vec<(u64, bool, Ask)>,
}

impl Uploads {
    /// One more is to be uploaded.
    pub(super) fn begin(&mut self) -> u64 {
        self.next += 1;
        self.under_way.insert(self.next);
        self.next
    }

    /// It ended; the syncs that waited for no other, and whether all went well for them.
    pub(super) fn end(&mut self, upload: u64, well: bool) -> Vec<(bool, Ask)> {
        self.under_way.remove(&upload);
        for (upto, all_well, _) in &mut self.syncs {
            *all_well &= well || *upto < upload;
        }
        self.due()
    }

    /// Waits for all that began.
    pub(super) fn sync(&mut self, ask: Ask) -> Vec<(bool, Ask)> {
        self.syncs.push((self.next, true, ask));
        self.due()
    }

    /// Those who wait, whatever for.
    pub(super) fn give_up(&mut self) -> Vec<Ask> {
        self.syncs.drain(..).map(|(.., ask)| ask).collect()
    }

    pub(super) fn are_over(&self) -> bool {
        self.under_way.is_empty()
    }

    fn due(&mut self) -> Vec<(bool, Ask)> {
        let first = self.under_way.first().copied().unwrap_or(u64::MAX);
        let due = self.syncs.extract_if(.., |(upto, ..)| *upto < first);
        due.map(|(_, well, ask)| (well, ask)).collect()
    }
}

/// Everything behind the one lock of the tier.
pub(super) struct State {
    pub(super) index: Index,
    /// Packs in the bucket, by name.
    pub(super) by_id: HashMap<PackId, Serial>,
    /// Manifests in the bucket that were read or written, and the packs they name.
    pub(super) manifests: BTreeMap<ManifestName, Told>,
    pub(super) uploads: Uploads,
    /// Stores that were taken and are not in a pack.
    pub(super) queue: Queue,
    pub(super) removed: Removed,
    /// Packs of this node from which blocks were removed since a manifest told of them.
    pub(super) changed: BTreeSet<Serial>,
    /// Packs of others that are left out because the index has no room, and how many manifests name each.
    pub(super) left_out: HashMap<PackId, u32>,
    /// Manifests that make no sense here: nobody knows what they name.
    pub(super) unreadable: BTreeSet<ManifestName>,
    /// Manifests that could not be had the last time, and why.
    pub(super) missed: BTreeMap<ManifestName, String>,
    /// What this node told before it was started is known.
    pub(super) looked: bool,
    /// Another session that wrote under this node's name since.
    pub(super) stranger: Option<u64>,
    /// Another daemon writes under this node's name.
    pub(super) twin: bool,
    /// Blocks must not move while somebody goes through all of them: until then.
    pub(super) visited_until: Duration,
    /// When the last orders were given to close.
    pub(super) closing: bool,
}

impl State {
    /// Nobody finds the block from now on, until it is stored again.
    pub(super) fn remove(&mut self, name: Name, now: Wall) {
        self.queue.remove(&name);
        self.removed.remove(name, now);
        let ours = self.index.remove(&name);
        self.changed.extend(ours);
    }

    /// The same for all blocks of an identity.
    pub(super) fn clear(&mut self, identity: IdentityId, now: Wall) {
        self.queue.clear(identity);
        self.removed.clear(identity, now);
        self.index.clear(identity);
    }

    /// Memory that all of it takes, bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.index.memory_bytes() + self.removed.memory_bytes()
    }

    /// Whether a manifest may name the pack: one that cannot be read may name any.
    pub(super) fn names(&self, id: &PackId) -> bool {
        let unknown = !self.unreadable.is_empty() || !self.missed.is_empty();
        unknown || self.by_id.contains_key(id) || self.left_out.contains_key(id)
    }

    /// Whether a node told something that is not known here.
    pub(super) fn is_unknown(&self, node: &str) -> bool {
        self.unreadable.iter().chain(self.missed.keys()).any(|name| name.node == node)
    }
}

/// The parts' common ground.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) service: Service,
    pub(super) paths: Paths,
    /// Tells this run of the daemon from others.
    pub(super) session: u64,
    pub(super) state: Ranked<State, OBJECT>,
    pub(super) ended: Arc<Ended>,
    pub(super) counts: Counts,
    /// Bytes of blocks that were taken and are not in the bucket.
    pub(super) buffered: AtomicU64,
    /// Writing is forbidden, for this reason.
    pub(super) read_only: Option<String>,
    /// The thread that packs has ended.
    pub(super) packer_ended: AtomicBool,
    pub(super) quiet: Quiet,
    /// Held by whoever reads manifests.
    pub(super) refreshing: tokio::sync::Mutex<()>,
    /// Woken when this node has more in the bucket than it may.
    pub(super) over_capacity: tokio::sync::Notify,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        service: Service,
        session: u64,
        ended: Arc<Ended>,
        read_only: Option<String>,
    ) -> Self {
        let state = State {
            index: Index::new(),
            by_id: HashMap::new(),
            manifests: BTreeMap::new(),
            uploads: Uploads::default(),
            queue: Queue::default(),
            removed: Removed::default(),
            changed: BTreeSet::new(),
            left_out: HashMap::new(),
            unreadable: BTreeSet::new(),
            missed: BTreeMap::new(),
            looked: false,
            stranger: None,
            twin: false,
            visited_until: Duration::ZERO,
            closing: false,
        };
        Self {
            paths: Paths::new(service.prefix()),
            options,
            service,
            session,
            state: Ranked::new(state),
            ended,
            counts: Counts::default(),
            buffered: AtomicU64::new(0),
            read_only,
            packer_ended: AtomicBool::new(false),
            quiet: Quiet::default(),
            refreshing: tokio::sync::Mutex::new(()),
            over_capacity: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn wall(&self) -> Wall {
        self.options.clock.wall()
    }

    /// Why nothing can be written, if so.
    pub(super) fn takes_no_writes(&self) -> Option<String> {
        self.read_only.clone().or_else(|| self.service.refused(Right::Write))
    }

    /// Answers those who waited for a sync.
    pub(super) fn answer_syncs(due: Vec<(bool, Ask)>) {
        for (well, ask) in due {
            let lost = || Failure::Io("some of what was stored could not be uploaded".to_owned());
            ask.answer(if well { Ok(None) } else { Err(lost()) });
        }
    }

    /// Takes blocks out of the index that nobody will find any more.
    pub(super) fn sweep(&self) {
        let now = self.wall();
        let serials: Vec<Serial> =
            self.state.lock().index.packs().map(|(serial, _)| serial).collect();
        for serial in serials {
            let mut state = self.state.lock();
            let cleared = state.index.sweep(serial, now);
            if cleared && state.index.pack(serial).is_some_and(|pack| pack.ours) {
                state.changed.insert(serial);
            }
        }
    }

    /// True when nothing is packed or uploaded any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.packer_ended.load(Ordering::Acquire) && self.state.lock().uploads.are_over()
    }
}

/// Wakes who waits for something to end.
#[derive(Default)]
pub(super) struct Quiet {
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Quiet {
    pub(super) fn wake(&self) {
        drop(self.mutex.lock());
        self.condvar.notify_all();
    }

    /// Until `over` says so, or the time is.
    pub(super) fn wait(&self, within: Duration, over: impl Fn() -> bool) {
        if let Ok(held) = self.mutex.lock() {
            drop(self.condvar.wait_timeout_while(held, within, |()| !over()));
        }
    }
}
