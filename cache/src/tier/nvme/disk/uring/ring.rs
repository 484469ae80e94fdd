//! One io_uring: how it is set up, and how it is entered.

use std::io;
use std::thread::{self, ThreadId};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// What is asked of a ring beyond the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Wish {
    /// A kernel thread takes submissions, so that they cost no call.
    pub(in super::super) sqpoll: bool,
    /// The device is asked for completions, so that they cost no interrupt.
    pub(in super::super) iopoll: bool,
}

/// A kernel thread that had nothing to do for so long goes to sleep.
const SQPOLL_IDLE_MS: u32 = 50;

/// Longer waits end early.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// A ring. It belongs to the thread that enters it first.
pub(super) struct Ring {
    ring: IoUring,
    /// Whose it is; only then can it be entered.
    owner: Option<ThreadId>,
}

impl Ring {
    /// A ring of at least `entries` entries that knows these files.
    pub(super) fn new(entries: u32, wish: Wish, files: &[i32]) -> io::Result<Self> {
        let ring = Self::build(entries, wish)?;
        let parameters = ring.params();
        if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "Linux 5.11 or later is needed",
            ));
        }
        ring.submitter().register_files(files)?;
        Ok(Self { ring, owner: None })
    }

    /// The best that the kernel has: completions are worked on when we ask for them and not whenever
    /// the kernel likes, by the one thread there is (Linux 6.1), or at least without interrupting it
    /// (5.19).
    fn build(entries: u32, wish: Wish) -> io::Result<IoUring> {
        let mut last = None;
        for choice in 0..3 {
            let mut builder = IoUring::builder();
            builder.dontfork();
            // Until it is first entered it belongs to nobody.
            builder.setup_r_disabled();
            if wish.iopoll {
                builder.setup_iopoll();
            }
            if wish.sqpoll {
                builder.setup_sqpoll(SQPOLL_IDLE_MS);
            } else {
                match choice {
                    0 => {
                        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
                    }
                    1 => {
                        builder.setup_coop_taskrun().setup_taskrun_flag();
                    }
                    _ => {}
                }
            }
            match builder.build(entries) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
                answer => return answer,
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
    }

    pub(super) fn inner(&self) -> &IoUring {
        &self.ring
    }

    /// Puts an entry into the submission queue.
    ///
    /// # Safety
    /// What the entry points to is valid, for what it does, until its completion was seen or the ring
    /// is known to be gone.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: passed on from the caller.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    pub(super) fn is_full(&mut self) -> bool {
        self.ring.submission().is_full()
    }

    /// Whether it belongs to another thread, and cannot be used by this one.
    pub(super) fn is_foreign(&self) -> bool {
        self.owner.is_some_and(|owner| owner != thread::current().id())
            && self.ring.params().is_setup_single_issuer()
    }

    /// Gives what was pushed to the kernel and lets it finish what it has finished, in one call or
    /// none.
    pub(super) fn submit(&mut self) {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if !idle || self.ring.params().is_setup_iopoll() {
            self.own();
            passing(self.ring.submit());
        }
    }

    /// The same, and waits until there is a completion, for so long at most.
    pub(super) fn submit_and_wait(&mut self, within: Duration) {
        self.own();
        let within = Timespec::from(within.min(WAIT_MAX));
        passing(self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&within)));
    }

    fn own(&mut self) {
        if self.owner.is_none() {
            self.owner = Some(thread::current().id());
            passing(self.ring.submitter().register_enable_rings().map(|()| 0));
        }
    }

    /// The next completion.
    pub(super) fn completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

/// What a call may say passes: a signal, no memory for a moment, completions that are to be fetched
/// first, the end of the time. What was not done is done by the next call.
fn passing(answer: io::Result<usize>) {
    if let Err(error) = answer {
        tracing::trace!("io_uring_enter: {error}");
    }
}
