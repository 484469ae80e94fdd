//! A store whose layers come one after the other, while the engine computes the next.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tranship_cache::Link;
use tranship_cache::client::{Cache, Error, Filled, Grant, Reservation, Stored};

use crate::job::attempt;
use crate::paged::{Paged, PagedError};
use crate::queue::{Done, Ended, JobId, Queue, QueueError, Shared, Turn};

/// Blocks that are filled layer by layer. Dropping it before [`Filling::finish`] gives their room back.
#[derive(Debug)]
pub struct Filling {
    fill: Arc<Fill>,
    finished: bool,
}

/// What the queue's threads do for it, one after the other.
#[derive(Debug)]
pub(crate) struct Fill {
    queue: Arc<Shared>,
    cache: Cache,
    job: JobId,
    pages: Paged,
    blocks: Vec<(Link, u64)>,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    steps: VecDeque<Step>,
    /// A thread is at it, or will be.
    busy: bool,
    /// What there is to fill, or how the job will end.
    rooms: Result<Rooms, Ended>,
}

#[derive(Debug, Default)]
struct Rooms {
    /// One a block.
    blocks: Vec<Room>,
    /// Layers that were not copied yet.
    missing: BTreeSet<usize>,
}

#[derive(Debug)]
enum Step {
    Reserve,
    Layer(usize),
    Finish,
    Abandon,
}

#[derive(Debug)]
enum Room {
    Open(Reservation),
    Ended(Stored),
}

impl Queue {
    /// Begins a store of one page a block, to be filled layer by layer. Room is asked for at once.
    ///
    /// # Errors
    /// When a page is not there, or the queue does not take the job.
    pub fn begin(
        &self,
        cache: &Cache,
        pages: &Paged,
        blocks: Vec<(Link, u64)>,
    ) -> Result<Filling, BeginError> {
        for (_, page) in &blocks {
            pages.block(*page)?;
        }
        let queue = Arc::clone(self.shared());
        let job = queue.open()?;
        let (cache, pages, began) = (cache.clone(), pages.clone(), Instant::now());
        let rooms = Ok(Rooms::default());
        let state = Mutex::new(State { steps: VecDeque::new(), busy: false, rooms });
        let fill = Arc::new(Fill { queue, cache, job, pages, blocks, began, state });
        Fill::add(&fill, Step::Reserve);
        Ok(Filling { fill, finished: false })
    }
}

/// A filling that was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// A page is not there.
    #[error(transparent)]
    Page(#[from] PagedError),
    /// The queue did not take it.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Filling {
    /// Copies the bytes of one layer, soon: they must not change before the job was drained. Layers come in
    /// any order; one that comes again is copied again.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer(&self, layer: usize) {
        assert!(layer < self.fill.pages.layers(), "layer {layer} of {:?}", self.fill.pages);
        Fill::add(&self.fill, Step::Layer(layer));
    }

    /// All layers were told: commits the blocks, which are refused if one was not. The job's end is drained
    /// from the queue.
    pub fn finish(mut self) -> JobId {
        self.finished = true;
        Fill::add(&self.fill, Step::Finish);
        self.fill.job
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.finished {
            Fill::add(&self.fill, Step::Abandon);
        }
    }
}

impl Fill {
    fn add(fill: &Arc<Self>, step: Step) {
        let mut state = fill.lock();
        state.steps.push_back(step);
        if !std::mem::replace(&mut state.busy, true) {
            drop(state);
            if !fill.queue.push(Turn::Fill(Arc::clone(fill)))
                && let Some(done) = fill.go_on(true)
            {
                fill.queue.end(done);
            }
        }
    }

    /// Does what there is to do, which is nothing but to end once the queue was closed; the job's end, if
    /// that was in it.
    pub(crate) fn go_on(&self, closed: bool) -> Option<Done> {
        loop {
            let (step, rooms) = {
                let mut state = self.lock();
                let Some(step) = state.steps.pop_front() else {
                    state.busy = false;
                    return None;
                };
                (step, std::mem::replace(&mut state.rooms, Ok(Rooms::default())))
            };
            let rooms = if closed { rooms.and(Err(Ended::Closed)) } else { rooms };
            let rooms = match step {
                Step::Reserve => rooms.and_then(|_| attempt(|| self.reserve())),
                Step::Layer(layer) => {
                    rooms.and_then(|rooms| attempt(|| Ok(self.copy(layer, rooms))))
                }
                Step::Finish => {
                    return Some(self.done(rooms.and_then(|rooms| attempt(|| self.commit(rooms)))));
                }
                Step::Abandon => return Some(self.done(rooms.and(Err(Ended::Closed)))),
            };
            self.lock().rooms = rooms;
        }
    }

    fn done(&self, results: Result<Vec<Stored>, Ended>) -> Done {
        let (ended, bytes) = match results {
            Ok(results) => {
                let stored = results.iter().filter(|result| **result == Stored::Stored).count();
                (Ended::Stored(results), (stored * self.pages.block_bytes()) as u64)
            }
            Err(ended) => (ended, 0),
        };
        Done { job: self.job, ended, bytes, elapsed: self.began.elapsed() }
    }

    fn reserve(&self) -> Result<Rooms, Error> {
        let bytes = self.pages.block_bytes() as u64;
        let wanted: Vec<_> = self.blocks.iter().map(|(link, _)| (*link, bytes)).collect();
        let room = |grant| match grant {
            Grant::Granted(room) => Room::Open(room),
            Grant::Exists => Room::Ended(Stored::Exists),
            Grant::InFlight => Room::Ended(Stored::InFlight),
            Grant::Refused { why, retry_after } => {
                Room::Ended(Stored::Refused { why, retry_after })
            }
        };
        let blocks = self.cache.reserve(&wanted)?.into_iter().map(room).collect();
        Ok(Rooms { blocks, missing: (0..self.pages.layers()).collect() })
    }

    fn copy(&self, layer: usize, mut rooms: Rooms) -> Rooms {
        for (room, (_, page)) in rooms.blocks.iter_mut().zip(&self.blocks) {
            let Room::Open(open) = room else { continue };
            let (at, spans) =
                self.pages.part(*page, layer).expect("pages were checked at the beginning");
            if let Err(error) = open.gather_at(at, &spans) {
                *room = Room::Ended(refused(&error));
            }
        }
        rooms.missing.remove(&layer);
        rooms
    }

    fn commit(&self, rooms: Rooms) -> Result<Vec<Stored>, Error> {
        // Room has the bytes of whatever was there before.
        let missing = rooms.missing.first().map(|layer| {
            let layers = self.pages.layers();
            format!("layer {layer} of {layers} was not told; tell all layers before the end")
        });
        let (mut results, mut filled, mut places) = (Vec::new(), Vec::<Filled>::new(), Vec::new());
        for room in rooms.blocks {
            results.push(match (room, &missing) {
                (Room::Ended(result), _) => result,
                (Room::Open(_), Some(why)) => refused(why),
                (Room::Open(open), None) => match open.seal() {
                    Ok(full) => {
                        filled.push(full);
                        places.push(results.len());
                        Stored::Stored
                    }
                    Err(error) => refused(&error),
                },
            });
        }
        for (place, committed) in places.into_iter().zip(self.cache.commit(filled)?) {
            if let Err(error) = committed {
                results[place] = refused(&error);
            }
        }
        Ok(results)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: &impl ToString) -> Stored {
    Stored::Refused { why: error.to_string(), retry_after: None::<Duration> }
}
