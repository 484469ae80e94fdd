//! Threads that read and write, for where io_uring is not to be had.
//!
//! One lock guards everything; it is a leaf (nothing else is locked or called under it), and never
//! held during a call that may wait for the device.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::files::Files;
use super::schedule::{Action, Limits, Next, Piece, Schedule};
use super::{Disk, Ended, Op, Waker};

/// How long a disk that is dropped waits for what is under way.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// A disk of threads.
pub(super) struct Pool {
    shared: Arc<Shared>,
    files: Arc<Files>,
    /// Operations taken since the last look.
    fresh: usize,
    threads: Vec<JoinHandle<()>>,
    /// Why it is this one.
    why: String,
}

struct Shared {
    state: Mutex<State>,
    /// There may be a piece to begin.
    work: Condvar,
    /// An operation ended, or the waker was called.
    news: Condvar,
}

struct State {
    schedule: Schedule,
    woken: bool,
    closing: bool,
    /// Threads in a call.
    busy: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can come between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Over these files, with so many threads, because of `why`.
    pub(super) fn new(files: Files, limits: Limits, why: String) -> io::Result<Self> {
        let files = Arc::new(files);
        let schedule = Schedule::new(Arc::clone(&files), limits);
        let state = State { schedule, woken: false, closing: false, busy: 0 };
        let (work, news) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), work, news });
        let mut pool = Self { shared, files, fresh: 0, threads: Vec::new(), why };
        for _ in 0..limits.depth {
            let (shared, files) = (Arc::clone(&pool.shared), Arc::clone(&pool.files));
            let thread = thread::Builder::new().name("tranship-disk".to_owned());
            // Those that have started end with `pool`.
            pool.threads.push(thread.spawn(move || serve(&shared, &files))?);
        }
        Ok(pool)
    }
}

/// One thread: a piece after the other.
fn serve(shared: &Shared, files: &Files) {
    let mut state = shared.lock();
    while !state.closing {
        let Some(mut piece) = state.schedule.next() else {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.busy += 1;
        drop(state);
        let result = loop {
            let answer = call(&piece, files);
            if let Next::End(result) = piece.answered(answer, files) {
                break result;
            }
        };
        state = shared.lock();
        state.busy -= 1;
        state.schedule.ended(piece, result);
        // This thread takes the next piece; its end may have let another begin as well.
        shared.work.notify_one();
        if state.schedule.has_ended() || state.closing {
            shared.news.notify_all();
        }
    }
}

/// Does a piece, or some of it: bytes, or a negative error number.
fn call(piece: &Piece, files: &Files) -> isize {
    let descriptor = files.descriptor(piece.file);
    let offset = piece.offset as libc::off_t;
    let (at, len) = piece.span.as_ref().map_or((std::ptr::null_mut(), 0), |span| {
        (span.as_ptr().cast::<libc::c_void>(), span.len())
    });
    // SAFETY: the descriptor is open as long as `files`; the piece's span keeps `len` bytes at `at`
    // mapped during the call. That others may write to them meanwhile is no matter of the kernel's.
    let answer = unsafe {
        match piece.action {
            Action::Read => libc::pread(descriptor, at, len, offset),
            Action::Write => libc::pwrite(descriptor, at, len, offset),
            Action::Flush => libc::fdatasync(descriptor) as isize,
        }
    };
    if answer >= 0 {
        return answer;
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    -(errno as isize)
}

impl Disk for Pool {
    fn describe(&self) -> String {
        let Self { threads, files, why, .. } = self;
        let cache = if files.direct { "O_DIRECT" } else { "through the page cache" };
        let threads = threads.len();
        format!("{threads} threads ({why}), {cache}, {files}")
    }

    fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    fn stripe_bytes(&self) -> Option<u64> {
        self.files.stripe_bytes()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.shared.lock().schedule.submit(op)?;
        self.fresh += 1;
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        for _ in 0..std::mem::take(&mut self.fresh).min(self.threads.len()) {
            self.shared.work.notify_one();
        }
        self.shared.lock().schedule.drain(ended);
    }

    fn wait(&mut self, within: Duration) {
        for _ in 0..std::mem::take(&mut self.fresh).min(self.threads.len()) {
            self.shared.work.notify_one();
        }
        let quiet = |state: &mut State| !state.woken && !state.schedule.has_ended();
        let news = self.shared.news.wait_timeout_while(self.shared.lock(), within, quiet);
        news.unwrap_or_else(PoisonError::into_inner).0.woken = false;
    }

    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            shared.lock().woken = true;
            shared.news.notify_all();
        })
    }

    fn in_flight(&self) -> usize {
        self.shared.lock().schedule.in_flight()
    }

    fn end(mut self: Box<Self>) -> bool {
        self.stop()
    }
}

impl Pool {
    /// Ends the threads; whether all calls returned.
    fn stop(&mut self) -> bool {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.work.notify_all();
        let end = Instant::now() + CLOSE_WITHIN;
        while state.busy > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let busy = state.busy;
                // The threads hold what they work on.
                tracing::error!(
                    "{}: {busy} calls have not returned after {CLOSE_WITHIN:?}; the device hangs, \
                     and their memory is given up",
                    self.files
                );
                return false;
            }
            let waited = self.shared.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Spans of what was never begun go back now, whoever still has a waker.
        let files = Arc::clone(state.schedule.files());
        let none = Limits { depth: 0, piece_bytes: 0, room: 0 };
        let given_up = std::mem::replace(&mut state.schedule, Schedule::new(files, none));
        drop(state);
        drop(given_up);
        // They are out of every call. Nothing else holds the files then.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}
