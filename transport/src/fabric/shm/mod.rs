//! Shared memory between processes of one host: true one-sided.
//!
//! Regions are memfds. A peer that holds a window's descriptor asks for the region over the socket
//! of the connection, maps it, and from then on copies straight between its memory and the window:
//! the owner's processor does nothing. Immediates and messages go through lock-free rings in the
//! memory that a connection shares (`ring`), and a sleeping owner is woken through an eventfd
//! (`gate`).
//!
//! # What holds, and why
//! - *Only through open windows.* Before each chunk the initiator checks the window's stamp in a
//!   table that its owner alone can write (`control`), under the fence of `hazard`: no byte
//!   lands in a window after [`Event::Revoked`](super::Event::Revoked).
//! - *The dead do not write.* A peer's hazards stop to count once its process has died or has closed
//!   the socket. Death is shown by a pidfd, which "polls as readable when the process terminates",
//!   which is when all its threads have (`pidfd_open(2)`), and a thread that has left user space for
//!   good stores nothing any more. An end of the socket shows the same: the kernel closes the
//!   descriptors of a dying process when its last thread gives its file table up, which each does
//!   after it gave its memory up (`_exit(2)`; `exit_mm` before `exit_files` in the kernel's
//!   `do_exit`); and a fabric that lives on closes its socket only after its last copy ended. Both
//!   are watched because a forked child may keep a dead engine's socket open (`fork(2)`), never its
//!   memory (`MADV_DONTFORK`, `madvise(2)`). A connection that we give up ourselves is remembered
//!   until one of the two is seen. A peer that is stopped in the middle of a chunk (`SIGSTOP`)
//!   delays the fence for as long as it is stopped.
//! - *Nothing a peer does makes us fault or stray.* Shared memory is sealed against truncation,
//!   every word read from it is read once and checked, and a peer that writes nonsense is hung up
//!   on. What peers of the same user cannot be kept from is to write to a region they have mapped:
//!   a descriptor opens a window, but the mapping is of its whole region.
//!
//! # Threads
//! Whoever calls [`Fabric::poll`](super::Fabric::poll) does everything, copies of transfers up to
//! 64 KiB already in `post`. With [`Config::copy_threads`] threads of their own help with larger
//! ones. There are no locks but the one around these threads' queue.

mod config;
mod connection;
mod control;
mod crossing;
mod doorbell;
mod fabric;
mod gate;
mod handshake;
mod hazard;
mod job;
mod jobs;
mod link;
mod peers;
mod pool;
mod ring;
mod route;
mod segment;
mod socket;
mod tag;
mod turn;
mod watch;
mod windows;
mod wire;
mod word;

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(all(loom, test))]
mod models;
#[cfg(any(test, feature = "fuzzing"))]
mod ring_cells;
#[cfg(all(not(loom), test))]
mod ring_tests;
#[cfg(all(not(loom), test))]
mod tests;

pub use config::Config;
