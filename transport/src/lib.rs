//! One-sided transport: regions of memory, windows into them, and the engine that writes and reads
//! them across processes and machines.
//!
//! ```
//! use std::time::Duration;
//! use tranship_transport::{Engine, HostMemory};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The receiver opens a window and counts what arrives in it.
//! let receiver = Engine::builder().build()?;
//! let pages = receiver.alloc(HostMemory::new(1 << 20))?;
//! let arrivals = receiver.counter()?;
//! let window = pages.window(0..65536)?;
//! let (descriptor, slot) = (window.descriptor(), arrivals.slot()); // handed over by any channel
//!
//! // The sender connects on first use and writes straight into the receiver's memory.
//! let sender = Engine::builder().build()?;
//! let source = sender.alloc(HostMemory::new(65536))?;
//! source.memory().write_at(0, b"hello")?;
//! let to = sender.open(&descriptor)?;
//! let sent = sender
//!     .write(source.slice(0..65536)?, to.slice(0..65536)?)
//!     .immediate(slot)
//!     .deadline(Duration::from_secs(1))
//!     .wait();
//! assert!(sent.is_done(), "{sent}");
//!
//! // One arrival: its payload is visible. After the fence the pages may be used for something else.
//! arrivals.wait(1, Duration::from_secs(1))?;
//! let mut head = [0; 5];
//! pages.memory().read_at(0, &mut head)?;
//! assert_eq!(&head, b"hello");
//! window.revoke()?;
//! # Ok(())
//! # }
//! ```
//!
//! A transfer ends, by its deadline, in exactly one [`Outcome`]; only that says whether pages may
//! be reused. Fabrics (see [`fabric`]) move the bytes; the engine does everything else once.

pub mod address;
mod barrier;
mod batch;
pub mod checksum;
mod completion;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod copy;
mod counter;
mod engine;
pub mod fabric;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod held;
mod immediate;
mod lane;
pub mod memory;
mod notify;
mod order;
mod outcome;
mod pages;
mod peer;
mod rail;
mod region;
mod remote;
#[doc(hidden)]
pub mod sabotage;
mod slots;
mod sync;
mod time;
mod transfer;
mod watcher;
mod window;

pub use address::{Address, EngineId, Kind};
pub use barrier::{Barrier, BarrierError, Invitation, JoinError};
pub use batch::{Batch, Member, Target, Transfers};
pub use counter::{CountError, Counter};
pub use engine::{
    BuildError, Builder, CountersExhausted, Drive, Engine, MapError, NotFenced, PeerError, Polling,
    RegionError, Sink, Stats,
};
pub use held::Held;
pub use immediate::{Immediate, Slot};
pub use lane::{Lane, Priority};
pub use memory::{HostMemory, Memory};
pub use notify::Notifier;
pub use outcome::{Outcome, Reason};
pub use pages::{Cursor, Pages, PagesError, Piece, Plan, PlanError, Run};
pub use peer::{Incoming, Peer};
pub use rail::{Fact, Path, PathState, Rail};
pub use region::{CloseError, RangeError, Region, Slice};
pub use remote::{Mapping, RemoteSlice, RemoteWindow};
pub use time::{Clock, MonotonicClock, Steppable, Time};
pub use transfer::{Submission, SubmitError, Transfer};
pub use watcher::{WatchError, WatchTimeout, Watcher};
pub use window::{Access, Descriptor, RevokeError, Route, Window, WindowError, WindowId};
