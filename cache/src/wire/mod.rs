//! The cache protocol: what client and daemon say to each other over the transport's messages.
//!
//! Every message is a [`Header`] and a body, all integers little-endian, at most the fabric's
//! longest message. A connection starts with [`Hello`] and [`Welcome`]; bulk bytes never travel in
//! messages, they go through the tenant's arena. `docs/protocol.md` gives the layout byte by byte.
//!
//! Decoders take bytes from strangers: they never panic, never allocate more than the message is
//! long, and say which field is wrong.

mod codec;
mod entry;
mod list;
mod reply;
mod request;

pub use codec::{Malformed, Reader, Writer};
pub use entry::{Committed, Event, Fetched, Leased, Reserved};
pub use reply::{Blocks, Fault, FaultCode, Lookup, Reply, Welcome};
pub use request::{Fetch, Hello, Item, Part, Put, Request, Source};

/// "TRANSHIP", read as a little-endian word.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TRANSHIP");

/// The version this build speaks; peers must speak the same.
pub const VERSION: u16 = 3;

/// Most keys in one message.
pub const BATCH_MAX: usize = 1024;

/// Most blocks to reserve or commit in one message: fewer, since each may be refused with a text.
pub const FILL_BATCH_MAX: usize = 256;

/// Most bytes of the text that says why one block was refused.
pub const WHY_BYTES_MAX: usize = 220;

/// Most bytes of a name, token or text in a message.
pub const TEXT_BYTES_MAX: usize = 1024;

/// How many entries fit into one message and into its answer, on a fabric whose longest message is
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Keys of a lookup, a pin, a removal, a prefetch or a persist.
    pub keys: usize,
    /// Keys of a lease.
    pub leases: usize,
    /// Blocks of a reservation, a commit or a put.
    pub fills: usize,
    /// Blocks of a fetch.
    pub fetches: usize,
    /// Blocks of a page of a listing.
    pub listed: usize,
}

impl Batches {
    /// Bytes set aside for the fields around the entries, a window's descriptor among them.
    const FRAME_BYTES: usize = 512;

    /// For messages of at most `message_bytes_max`.
    #[must_use]
    pub fn within(message_bytes_max: usize) -> Self {
        let room = message_bytes_max.saturating_sub(Self::FRAME_BYTES);
        let fit = |entry_bytes: usize, max: usize| (room / entry_bytes).clamp(1, max);
        // The longer of request and answer, entry by entry.
        Self {
            keys: fit(16, BATCH_MAX),
            leases: fit(33, BATCH_MAX),
            fills: fit(13 + WHY_BYTES_MAX, FILL_BATCH_MAX),
            fetches: fit(25, BATCH_MAX),
            listed: fit(list::LISTED_BYTES, BATCH_MAX),
        }
    }
}

/// What every message starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which message.
    pub kind: u8,
    /// Chosen by the client; the reply carries it back. Zero asks for no reply.
    pub request: u32,
}

/// Bytes of a [`Header`]: kind, three of zero, request.
pub const HEADER_BYTES: usize = 8;

impl Header {
    fn put(self, to: &mut Writer) {
        to.u8(self.kind);
        to.raw(&[0; 3]);
        to.u32(self.request);
    }

    /// Reads it off a message.
    ///
    /// # Errors
    /// When the message is shorter.
    pub fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = from.u8("kind")?;
        from.raw(3, "header")?;
        Ok(Self { kind, request: from.u32("request")? })
    }
}
