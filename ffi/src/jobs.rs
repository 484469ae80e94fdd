//! Loading and storing blocks on threads of the library's, drained in batches.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tranship_kv::queue::QueueError;
use tranship_kv::{Done, Ended, JobId, Queue};

use crate::blocks::{load_result, store_result, to_load, to_store, tranship_spans_t, why};
use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::keys::{tranship_key_t, tranship_link_t};
use crate::output::{Out, OutList};
use crate::reasons;
use crate::status::{Failure, Result, tranship_status_t};

/// Threads that load and store blocks, and the jobs they have.
pub struct tranship_jobs_t {
    _opaque: [u8; 0],
}

/// A job that has ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_done_t {
    /// As given to the submission.
    pub user_data: u64,
    /// Bytes of the blocks that were loaded or stored.
    pub bytes: u64,
    /// From submission to end, nanoseconds.
    pub elapsed_ns: u64,
    /// TRANSHIP_OK when the results of its blocks have been put where the submission said; else nothing of a
    /// load is to be used, and nothing of a store is there for sure. tranship_last_reason() says why.
    pub status: tranship_status_t,
    /// 0.
    pub reserved: u32,
}

/// The most threads of one.
const THREADS_MAX: u32 = 256;

/// What the handle stands for.
pub struct Jobs {
    queue: Queue,
    asked: Mutex<HashMap<JobId, Asked>>,
    /// Taken from the queue for a caller who had no room for them.
    left: Mutex<VecDeque<Done>>,
}

/// What a job's end is told with.
struct Asked {
    user_data: u64,
    results: OutList<u32>,
}

// SAFETY: the caller lends the memory of the results until the job was drained, to whichever thread does.
unsafe impl Send for Asked {}

impl Jobs {
    fn asked(&self) -> MutexGuard<'_, HashMap<JobId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fd(&self) -> RawFd {
        self.queue.fd().as_raw_fd()
    }

    /// Notes who asked for a job before anyone can drain it.
    fn submit(
        &self,
        asked: Asked,
        submit: impl FnOnce(&Queue) -> std::result::Result<JobId, QueueError>,
    ) -> Result {
        let mut all = self.asked();
        let job = submit(&self.queue).map_err(|error| {
            let status = match error {
                QueueError::Full => tranship_status_t::TRANSHIP_FULL,
                _ => tranship_status_t::TRANSHIP_CLOSED,
            };
            Failure::new(status, error.to_string())
        })?;
        all.insert(job, asked);
        Ok(())
    }

    fn drain(&self, max: usize) -> Vec<Done> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(self.queue.drain());
        let count = max.min(left.len());
        let taken = left.drain(..count).collect();
        if !left.is_empty() {
            // SAFETY: eight bytes, to a descriptor that the queue keeps open.
            unsafe { libc::write(self.fd(), (&raw const ONE).cast(), 8) };
        }
        taken
    }

    /// Puts the results where they were asked for, and the text of what went wrong.
    fn tell(&self, done: Done) -> (tranship_done_t, String) {
        // Held while results are written, so that none are once the jobs were closed.
        let mut all = self.asked();
        let asked = all.remove(&done.job);
        let fill = |results: Vec<u32>| {
            if let Some(asked) = &asked {
                asked.results.fill(results);
            }
        };
        let (status, text) = match done.ended {
            Ended::Loaded(results) => {
                fill(results.into_iter().map(load_result).collect());
                (tranship_status_t::TRANSHIP_OK, String::new())
            }
            Ended::Stored(results) => {
                fill(results.iter().map(store_result).collect());
                let refused = results.iter().map(why).find(|why| !why.is_empty());
                (tranship_status_t::TRANSHIP_OK, refused.unwrap_or_default().to_owned())
            }
            Ended::Failed(error) => {
                let text = error.to_string();
                (Failure::from(error).status(), text)
            }
            Ended::Closed => {
                let text = "the jobs were closed before its turn came".to_owned();
                (tranship_status_t::TRANSHIP_CLOSED, text)
            }
            Ended::Panicked(panic) => {
                let text = format!("a defect of libtranship, please report it: {panic}");
                (tranship_status_t::TRANSHIP_INTERNAL, text)
            }
        };
        let told = tranship_done_t {
            user_data: asked.as_ref().map_or(0, |asked| asked.user_data),
            bytes: done.bytes,
            elapsed_ns: u64::try_from(done.elapsed.as_nanos()).unwrap_or(u64::MAX),
            status,
            reserved: 0,
        };
        (told, text)
    }

    fn give(&self, out: &OutList<tranship_done_t>, max: usize) -> usize {
        let told: Vec<_> = self.drain(max).into_iter().map(|done| self.tell(done)).collect();
        reasons::keep(told.iter().map(|(_, text)| text.as_str()));
        let count = told.len();
        out.fill(told.into_iter().map(|(done, _)| done));
        count
    }
}

static ONE: u64 = 1;

/// Starts `threads` threads for jobs, 0 for two.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_open(
    threads: u32,
    jobs: *mut *mut tranship_jobs_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(jobs, "jobs")?;
        if threads > THREADS_MAX {
            return Err(Failure::invalid(format!("{threads} threads: at most {THREADS_MAX}")));
        }
        let threads = if threads == 0 { 2 } else { threads };
        let queue = Queue::new(threads as usize)?;
        out.set(handle::open(Jobs { queue, asked: Mutex::default(), left: Mutex::default() })?);
        Ok(())
    })
}

/// As tranship_load(), on a thread of the library's. The memory of the blocks, and `results`, belong to the job until
/// it was drained, or the jobs were closed; the lists themselves are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_load(
    jobs: *mut tranship_jobs_t,
    cache: *mut tranship_cache_t,
    list: *const tranship_key_t,
    into: *const tranship_spans_t,
    count: usize,
    wait_us: u64,
    user_data: u64,
    results: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let results = OutList::new(results, count, "results")?;
        let wait = input::wait(wait_us)?;
        let (jobs, cache) = (handle::get::<Jobs>(jobs)?, handle::get::<Cache>(cache)?);
        let blocks = to_load(list, into, count)?;
        let asked = Asked { user_data, results };
        jobs.submit(asked, |queue| queue.load(&cache.cache, blocks, wait))
    })
}

/// As tranship_store(), on a thread of the library's. The memory of the blocks, and `results`, belong to the job
/// until it was drained, or the jobs were closed; the lists themselves are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_store(
    jobs: *mut tranship_jobs_t,
    cache: *mut tranship_cache_t,
    list: *const tranship_link_t,
    from: *const tranship_spans_t,
    count: usize,
    ttl_us: u64,
    user_data: u64,
    results: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let results = OutList::new(results, count, "results")?;
        let ttl = input::span(ttl_us)?;
        let (jobs, cache) = (handle::get::<Jobs>(jobs)?, handle::get::<Cache>(cache)?);
        let blocks = to_store(list, from, count)?;
        let asked = Asked { user_data, results };
        jobs.submit(asked, |queue| queue.store(&cache.cache, blocks, ttl))
    })
}

/// The event descriptor that is readable while there is something to drain: for poll(2) and epoll(7). It
/// belongs to the jobs: do not read or close it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_fd(
    jobs: *mut tranship_jobs_t,
    fd: *mut i32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let fd = Out::new(fd, "fd")?;
        fd.set(handle::get::<Jobs>(jobs)?.fd());
        Ok(())
    })
}

/// Takes up to `max` of the jobs that have ended, and puts the results of their blocks where they were asked for;
/// `count` is how many jobs, 0 for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_drain(
    jobs: *mut tranship_jobs_t,
    done: *mut tranship_done_t,
    max: usize,
    count: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let count = Out::new(count, "count")?;
        let out = OutList::new(done, max, "done")?;
        count.set(handle::get::<Jobs>(jobs)?.give(&out, max));
        Ok(())
    })
}

/// As tranship_jobs_drain(), but waits until a job has ended. TRANSHIP_TIMEOUT when none did within
/// `timeout_us`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_jobs_wait(
    jobs: *mut tranship_jobs_t,
    done: *mut tranship_done_t,
    max: usize,
    timeout_us: u64,
    count: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let count = Out::new(count, "count")?;
        count.set(0);
        let out = OutList::new(done, max, "done")?;
        if max == 0 {
            return Err(Failure::invalid("max is 0, and what is waited for goes there"));
        }
        let timeout = input::wait(timeout_us)?;
        let jobs = handle::get::<Jobs>(jobs)?;
        let until = Instant::now() + timeout;
        loop {
            let given = jobs.give(&out, max);
            let left = until.saturating_duration_since(Instant::now());
            if given > 0 {
                count.set(given);
                return Ok(());
            }
            if left.is_zero() {
                let text = format!("no job ended within {timeout:?}");
                return Err(Failure::new(tranship_status_t::TRANSHIP_TIMEOUT, text));
            }
            let mut poll = libc::pollfd { fd: jobs.fd(), events: libc::POLLIN, revents: 0 };
            let ms = left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
            libc::poll(&raw mut poll, 1, ms);
        }
    })
}

/// Takes no more jobs, waits for those under way, whose calls all have deadlines, and closes the handle. Those
/// whose turn has not come are not done; what was not drained is lost.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_jobs_close(jobs: *mut tranship_jobs_t) -> tranship_status_t {
    call(|| {
        let jobs = handle::close::<Jobs>(jobs)?;
        jobs.queue.close();
        // Another thread may still be draining: the memory of the results is the caller's again.
        jobs.asked().clear();
        Ok(())
    })
}
