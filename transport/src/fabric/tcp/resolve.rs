//! Names are looked up on threads of their own: `getaddrinfo(3)` blocks for as long as it likes.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// Look-ups at once; a resolver that hangs takes no more threads than this.
const LOOKUPS_MAX: usize = 16;

/// What came of a look-up: of which, and the addresses, none when there are none.
pub(super) type Answer = (u32, Vec<SocketAddr>);

/// The look-ups under way.
#[derive(Debug)]
pub(super) struct Resolver {
    shared: Arc<Shared>,
    waiting: Vec<(u32, String)>,
    running: usize,
}

#[derive(Debug)]
struct Shared {
    answers: Mutex<Vec<Answer>>,
    bell: OwnedFd,
}

impl Resolver {
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { answers: Mutex::default(), bell });
        Ok(Self { shared, waiting: Vec::new(), running: 0 })
    }

    /// Looks HOST:PORT up; the answer carries `id`. An address needs no look-up: `Some` at once.
    pub(super) fn ask(&mut self, id: u32, endpoint: &str) -> Option<Vec<SocketAddr>> {
        if let Ok(address) = endpoint.parse() {
            return Some(vec![address]);
        }
        self.waiting.push((id, endpoint.to_owned()));
        self.start();
        None
    }

    fn start(&mut self) {
        while self.running < LOOKUPS_MAX
            && let Some((id, endpoint)) = self.waiting.pop()
        {
            let shared = Arc::clone(&self.shared);
            let started =
                std::thread::Builder::new().name("tranship-name".to_owned()).spawn(move || {
                    let addresses = endpoint.to_socket_addrs().map(Iterator::collect);
                    let addresses = addresses.unwrap_or_else(|error| {
                        tracing::debug!("{endpoint:?} has no address: {error}");
                        Vec::new()
                    });
                    shared.put((id, addresses));
                });
            match started {
                Ok(_) => self.running += 1,
                Err(error) => {
                    tracing::warn!("no thread to look a name up: {error}; raise ulimit -u");
                    self.shared.put((id, Vec::new()));
                    // Counted like one that ran, since its answer is taken like one.
                    self.running += 1;
                }
            }
        }
    }

    /// What has been found since.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        let mut count = [0; 8];
        // Nothing to read is nothing to clear.
        let _ = read(&self.shared.bell, &mut count);
        let answers = std::mem::take(
            &mut *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner),
        );
        self.running -= answers.len();
        self.start();
        answers
    }
}

impl Shared {
    fn put(&self, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        // Full is as readable as not.
        let _ = write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }
}
