//! A store whose layers come one after the other, while the engine computes the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tranship_cache::Link;
use tranship_cache::client::{Cache, Error, Filled, Grant, Reservation, Stored};

use crate::paged::{Paged, PagedError};
use crate::queue::{Done, Ended, JobId, Queue, QueueError, Shared};

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

#[derive(Debug, Default)]
struct State {
    steps: VecDeque<Step>,
    /// A thread is at it, or will be.
    busy: bool,
    rooms: Vec<Room>,
    error: Option<Error>,
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
        let state = Mutex::default();
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
    /// Copies the bytes of one layer, soon: they must not change before the job was drained.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer(&self, layer: usize) {
        assert!(layer < self.fill.pages.layers(), "layer {layer} of {:?}", self.fill.pages);
        Fill::add(&self.fill, Step::Layer(layer));
    }

    /// All layers were told: commits the blocks. The job's end is drained from the queue.
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
            fill.queue.push(fill);
        }
    }

    /// Does what there is to do; the job's end, if that was in it.
    pub(crate) fn go_on(&self) -> Option<Done> {
        loop {
            let (step, mut rooms) = {
                let mut state = self.lock();
                let Some(step) = state.steps.pop_front() else {
                    state.busy = false;
                    return None;
                };
                (step, std::mem::take(&mut state.rooms))
            };
            let ended = match step {
                Step::Reserve => match self.reserve() {
                    Ok(reserved) => {
                        rooms = reserved;
                        None
                    }
                    Err(error) => {
                        self.lock().error = Some(error);
                        None
                    }
                },
                Step::Layer(layer) => {
                    self.copy(layer, &mut rooms);
                    None
                }
                Step::Finish => Some(self.commit(std::mem::take(&mut rooms))),
                Step::Abandon => Some(Ended::Closed),
            };
            if let Some(ended) = ended {
                let Ended::Stored(results) = &ended else { return Some(self.done(ended, 0)) };
                let stored = results.iter().filter(|result| **result == Stored::Stored).count();
                let bytes = (stored * self.pages.block_bytes()) as u64;
                return Some(self.done(ended, bytes));
            }
            self.lock().rooms = rooms;
        }
    }

    /// Gives the room back, as the queue was closed; the job's end, if it is time for that. Whatever is told of it
    /// later comes here too, so that a layer that is passed over is never committed.
    pub(crate) fn give_up(&self) -> Option<Done> {
        let (steps, rooms) = {
            let mut state = self.lock();
            state.busy = false;
            (std::mem::take(&mut state.steps), std::mem::take(&mut state.rooms))
        };
        drop(rooms);
        let ends = |step: &Step| matches!(step, Step::Finish | Step::Abandon);
        steps.iter().any(ends).then(|| self.done(Ended::Closed, 0))
    }

    fn done(&self, ended: Ended, bytes: u64) -> Done {
        Done { job: self.job, ended, bytes, elapsed: self.began.elapsed() }
    }

    fn reserve(&self) -> Result<Vec<Room>, Error> {
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
        Ok(self.cache.reserve(&wanted)?.into_iter().map(room).collect())
    }

    fn copy(&self, layer: usize, rooms: &mut [Room]) {
        for (room, (_, page)) in rooms.iter_mut().zip(&self.blocks) {
            let Room::Open(open) = room else { continue };
            let (at, spans) =
                self.pages.part(*page, layer).expect("pages were checked at the beginning");
            if let Err(error) = open.gather_at(at, &spans) {
                *room = Room::Ended(refused(&error));
            }
        }
    }

    fn commit(&self, rooms: Vec<Room>) -> Ended {
        if let Some(error) = self.lock().error.take() {
            return Ended::Failed(error);
        }
        let (mut results, mut filled, mut places) = (Vec::new(), Vec::<Filled>::new(), Vec::new());
        for room in rooms {
            results.push(match room {
                Room::Ended(result) => result,
                Room::Open(open) => match open.seal() {
                    Ok(full) => {
                        filled.push(full);
                        places.push(results.len());
                        Stored::Stored
                    }
                    Err(error) => refused(&error),
                },
            });
        }
        match self.cache.commit(filled) {
            Ok(committed) => {
                for (place, committed) in places.into_iter().zip(committed) {
                    if let Err(error) = committed {
                        results[place] = refused(&error);
                    }
                }
                Ended::Stored(results)
            }
            Err(error) => Ended::Failed(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: &impl ToString) -> Stored {
    Stored::Refused { why: error.to_string(), retry_after: None::<Duration> }
}
