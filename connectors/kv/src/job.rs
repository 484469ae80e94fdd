//! A job whose blocks are moved in parts, by whichever threads are free.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tranship_cache::client::{Cache, Error};
use tranship_transport::memory::Spans;

use crate::queue::{Ended, JobId, lock};

/// Blocks of a job that one thread moves before others get their turn.
const PART_BLOCKS: usize = 32;

/// A job that is moved in parts.
#[derive(Debug)]
pub(crate) struct Job<K, R> {
    id: JobId,
    cache: Cache,
    blocks: Vec<(K, Spans)>,
    /// By the part's first block.
    parts: Mutex<BTreeMap<usize, Result<Vec<R>, Ended>>>,
    left: AtomicUsize,
    began: Instant,
}

impl<K, R> Job<K, R> {
    pub(crate) fn new(id: JobId, cache: Cache, blocks: Vec<(K, Spans)>) -> Self {
        let left = AtomicUsize::new(blocks.len().div_ceil(PART_BLOCKS));
        Self { id, cache, blocks, parts: Mutex::default(), left, began: Instant::now() }
    }

    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(crate) fn blocks(&self) -> &[(K, Spans)] {
        &self.blocks
    }

    /// Since its submission.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The first block of each part.
    pub(crate) fn starts(&self) -> impl Iterator<Item = usize> {
        (0..self.blocks.len()).step_by(PART_BLOCKS)
    }

    pub(crate) fn part(&self, from: usize) -> &[(K, Spans)] {
        &self.blocks[from..self.blocks.len().min(from + PART_BLOCKS)]
    }

    /// Moves a part and puts its results aside; those of the whole job if it was the last.
    pub(crate) fn move_part(
        &self,
        from: usize,
        closed: bool,
        part: impl FnOnce() -> Result<Vec<R>, Error>,
    ) -> Option<Result<Vec<R>, Ended>> {
        let part = if closed { Err(Ended::Closed) } else { attempt(part) };
        lock(&self.parts).insert(from, part);
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let parts = std::mem::take(&mut *lock(&self.parts)).into_values();
        let parts: Result<Vec<_>, _> = parts.collect();
        Some(parts.map(|parts| parts.into_iter().flatten().collect()))
    }
}

/// Does a piece of a job; what it ends the job with if that fails.
pub(crate) fn attempt<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, Ended> {
    match caught(f) {
        Ok(result) => result.map_err(Ended::Failed),
        Err(panic) => Err(Ended::Panicked(panic)),
    }
}

/// What `f` panicked with. Whatever locks it held are taken all the same: none is held while it calls out.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("it does not say with what").to_owned();
        // A payload that panics when it is dropped would get past us.
        std::mem::forget(panic);
        text
    })
}

#[cfg(test)]
mod tests {
    use tranship_tests::daemon::Daemon;
    use tranship_tests::world::identity;
    use tranship_transport::Kind;

    use super::*;

    #[test]
    fn a_part_that_panics_ends_its_job() {
        let daemon = Daemon::start(1 << 20);
        let client = tranship_cache::client::Client::builder();
        let cache = client.connect(&daemon.address(Kind::Shm)).unwrap().cache(identity());
        let blocks = vec![((), Spans::new()); PART_BLOCKS + 1];
        let job = Job::new(1, cache, blocks);
        let panics = || -> Result<Vec<u8>, Error> { panic!("part {}", 1) };
        assert!(job.move_part(0, false, panics).is_none(), "one part is left");
        let Some(Err(Ended::Panicked(why))) = job.move_part(PART_BLOCKS, false, || Ok(vec![0]))
        else {
            panic!("all parts have ended")
        };
        assert_eq!(why, "part 1");
    }
}
