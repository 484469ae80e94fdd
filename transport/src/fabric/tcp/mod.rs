//! Streams over an IP network.
//!
//! A connection is one *latency* stream (control, messages, acknowledgements, the latency lane) and
//! some *bulk* streams. Payload is sent straight from the source and read straight into the
//! destination, whatever pieces the two lie in. `docs/tcp.md` has the layout of every byte.
//!
//! # What holds, and why
//! - *Only through open windows.* Whoever polls stores everything that lands, and looks at the
//!   window before each system call: a revoked window is fenced at once, and what was still coming
//!   for it is received into a sink.
//! - *Done means landed.* A write is acknowledged by the other side's fabric once all of its bytes
//!   lie in the window, and its immediate is delivered before that.
//! - *The gone do not land.* A peer lands bytes only while its end of the connection is open. That
//!   it is closed is shown by its goodbye, or by an orderly end of a stream: a fabric closes
//!   nothing while it goes on to land bytes, and the kernel closes what a dead process had
//!   (`exit(2)`). A reset or silence shows nothing: writes under way are lost, and the peer is
//!   asked again, at its address, to drop the connection. Its word proves it; so does another
//!   engine at that address, or nobody: an engine listens for as long as it has connections.
//! - *Bounded.* Of what a peer sends, at most 1 MiB of messages is kept, some
//!   thousand descriptions of operations, and 16 MiB of layouts; what makes no sense ends the
//!   connection. Writes that cannot be proven are never forgotten: a peer that has many of them is
//!   sent no more.
//!
//! # Threads
//! Whoever calls [`Fabric::poll`](super::Fabric::poll) does everything. Names are looked up on
//! short-lived threads.

mod call;
mod config;
mod control;
mod deaf;
mod dial;
mod fabric;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod greeting;
mod hub;
mod layout;
mod link;
mod pace;
mod receive;
mod resolve;
mod send;
mod socket;
mod stream;
mod suspects;
mod watch;
mod windows;

pub use config::Config;
#[cfg(test)]
pub(super) use control::WORD_BYTES_MAX;
pub(super) use control::{Control, Ended};

/// Decodes bytes as everything that a peer may send, for fuzzing: whatever they are, nothing is to
/// panic, and what is understood says the same when it is encoded again.
///
/// # Panics
/// When it does not.
#[cfg(feature = "conformance")]
pub fn decode_anything(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk()
        && let Ok(frame) = frame::Frame::decode(head)
    {
        assert_eq!(frame::Frame::decode(&frame.encode()), Ok(frame));
    }
    if let Some(ack) = bytes.first_chunk()
        && let Ok(ack) = frame::Ack::decode(ack)
    {
        assert_eq!(frame::Ack::decode(&ack.encode()), Ok(ack));
    }
    if let Some(prefix) = bytes.first_chunk()
        && let Ok((kind, len)) = greeting::prefix(prefix)
        && let Some(body) = bytes[greeting::PREFIX_BYTES..].get(..len)
        && let Ok(greeting) = greeting::Greeting::decode(kind, body)
    {
        let body = &greeting.encode()[greeting::PREFIX_BYTES..];
        assert_eq!(greeting::Greeting::decode(kind, body), Ok(greeting));
    }
    if let Ok(layout) = layout::Layout::decode(bytes) {
        let shape = layout::Shape::Layout(std::sync::Arc::new(layout));
        let body = layout::encode(shape.runs(), shape.layers());
        assert_eq!(body, bytes);
    }
}

#[cfg(all(not(loom), test))]
mod tests;
