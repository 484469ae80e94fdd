//! What is on the disk: a checksum for each granule, so that every byte that is read can be checked.
//!
//! Bytes that a device has just brought are in no cache, and a checksum takes as long as they take to
//! come from memory. A thread of its own takes those of large pieces unless told otherwise, so that who
//! submits does nothing else; a small one is done sooner than handed over.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tranship_cache::tier::Span;
use tranship_cache::tier::nvme::disk::Waker;
use tranship_transport::Memory;

use crate::bench::Error;

/// Noise, of which each granule takes a part and puts its own number in front.
const NOISE_BYTES: usize = 1 << 20;

/// Who takes checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// A thread of its own, of pieces for which that pays.
    Thread,
    /// The thread that submits.
    Inline,
    /// Nobody: what is read is not looked at, as fio does.
    None,
}

/// What is shorter is not handed over.
const HANDED_BYTES: usize = 256 << 10;

/// The checksums of a disk's granules.
pub struct Content {
    granule: usize,
    sums: Vec<u64>,
    /// Granules ever made: each begins with its number, and none is like another.
    made: u64,
    noise: Vec<u8>,
    checksums: Checksums,
    /// Where jobs go to, and come back from; none if they are done at once.
    thread: Option<(Sender<Job>, Receiver<Fresh>)>,
    done: VecDeque<Fresh>,
    /// Jobs that have not come back.
    out: usize,
}

/// Memory to be worked on.
struct Job {
    ticket: u64,
    span: Span,
    granule: usize,
    task: Task,
}

enum Task {
    /// Check that it is what was written at `at`.
    Check { at: u64, sums: Vec<u64> },
    /// Make new bytes, numbered from here on.
    Make { first: u64 },
}

/// Memory that can be used again.
pub struct Fresh {
    /// Which, as it was called.
    pub ticket: u64,
    /// The checksums of what is in it, or that it was not what was written.
    pub sums: Result<Vec<u64>, Error>,
}

impl Content {
    /// Of a disk of `bytes` bytes that nothing is known of, in granules of `granule` bytes. A thread calls
    /// `waker` after each piece.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(
        bytes: u64,
        granule: u64,
        checksums: Checksums,
        waker: Waker,
    ) -> Result<Self, Error> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        Ok(Self {
            granule: granule as usize,
            sums: vec![0; (bytes / granule) as usize],
            made: 0,
            noise: std::iter::repeat_with(next).take(NOISE_BYTES).collect(),
            thread: (checksums == Checksums::Thread).then(|| start(waker)).transpose()?,
            checksums,
            done: VecDeque::new(),
            out: 0,
        })
    }

    /// Who takes checksums of pieces of `len` bytes.
    #[must_use]
    pub fn checksums(&self, len: u64) -> Checksums {
        match self.checksums {
            Checksums::Thread if len < HANDED_BYTES as u64 => Checksums::Inline,
            checksums => checksums,
        }
    }

    /// Fills memory with noise, once: [`Content::make`] then changes a few bytes of each granule.
    ///
    /// # Errors
    /// When the memory is not writable.
    pub fn seed(&self, memory: &Memory) -> Result<(), Error> {
        for at in (0..memory.len()).step_by(NOISE_BYTES) {
            let len = NOISE_BYTES.min(memory.len() - at);
            memory.copy_in(at, &self.noise[..len])?;
        }
        Ok(())
    }

    /// Makes new bytes in `span`; it comes back in [`Content::take`].
    pub fn make(&mut self, ticket: u64, span: &Span) {
        let first = self.made;
        self.made += (span.len() / self.granule) as u64;
        self.hand(ticket, span, Task::Make { first });
    }

    /// Checks what was read from `at`; it comes back in [`Content::take`].
    pub fn check(&mut self, ticket: u64, span: &Span, at: u64) {
        let first = at as usize / self.granule;
        let sums = self.sums[first..first + span.len() / self.granule].to_vec();
        self.hand(ticket, span, Task::Check { at, sums });
    }

    /// Notes that bytes with these checksums are on their way to `at`.
    pub fn note(&mut self, at: u64, sums: &[u64]) {
        let first = at as usize / self.granule;
        self.sums[first..first + sums.len()].copy_from_slice(sums);
    }

    /// Memory that is done with.
    pub fn take(&mut self) -> Option<Fresh> {
        let handed = || self.thread.as_ref()?.1.try_recv().ok();
        let fresh = self.done.pop_front().or_else(handed)?;
        self.out -= 1;
        Some(fresh)
    }

    /// How many are still to be taken.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out
    }

    fn hand(&mut self, ticket: u64, span: &Span, task: Task) {
        self.out += 1;
        if self.checksums == Checksums::None {
            self.done.push_back(Fresh { ticket, sums: Ok(Vec::new()) });
            return;
        }
        let job = Job { ticket, span: span.clone(), granule: self.granule, task };
        match &self.thread {
            Some((to, _)) if span.len() >= HANDED_BYTES => {
                to.send(job).expect("the thread ends after this");
            }
            _ => self.done.push_back(job.work()),
        }
    }
}

/// A thread that works until nobody has anything for it.
fn start(waker: Waker) -> Result<(Sender<Job>, Receiver<Fresh>), Error> {
    let (to, jobs) = channel::<Job>();
    let (back, from) = channel();
    let work = move || {
        for job in jobs {
            if back.send(job.work()).is_err() {
                return;
            }
            waker();
        }
    };
    let thread = thread::Builder::new().name("checksums".to_owned()).spawn(work);
    thread.map(|_| (to, from)).map_err(|source| Error::Thread { source })
}

impl Job {
    fn work(self) -> Fresh {
        let Self { ticket, span, granule, task } = self;
        let parts = || parts(span.len(), granule).map(|part| span.slice(part));
        let sums = match task {
            Task::Make { first } => {
                let made = (first..).zip(parts());
                Ok(made
                    .map(|(number, part)| {
                        part.write_at(0, &number.to_le_bytes());
                        part.checksum()
                    })
                    .collect())
            }
            Task::Check { at, sums } => {
                match parts().zip(&sums).position(|(part, sum)| part.checksum() != *sum) {
                    Some(wrong) => Err(Error::Wrong { at: at + (wrong * granule) as u64 }),
                    None => Ok(sums),
                }
            }
        };
        Fresh { ticket, sums }
    }
}

fn parts(len: usize, granule: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(granule).map(move |at| at..at + granule)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tranship_transport::HostMemory;

    use super::*;

    #[test]
    fn a_changed_byte_is_found_and_said_where() {
        let memory = Arc::new(HostMemory::new(16 << 10).build().unwrap());
        let span = Span::whole(Arc::clone(&memory));
        let mut content = Content::new(64 << 10, 4096, Checksums::Inline, Arc::new(|| {})).unwrap();
        content.seed(&memory).unwrap();
        content.make(1, &span);
        let sums = content.take().unwrap().sums.unwrap();
        content.note(8192, &sums);
        let mut check = |at| {
            content.check(2, &span, at);
            content.take().unwrap().sums
        };
        assert!(check(8192).is_ok());
        assert!(matches!(check(0), Err(Error::Wrong { at: 0 })), "nothing was written there");
        span.write_at(9000, b"!");
        assert!(matches!(check(8192), Err(Error::Wrong { at: 16384 })));
    }
}
