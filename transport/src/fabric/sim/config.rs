//! The shape of a simulated network.

use std::ops::Range;
use std::time::Duration;

use super::faults::Faults;

/// How operations run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As packets, in virtual time.
    Packets,
    /// At once, inside `post`, without faults: to measure what the engine itself costs.
    Null,
}

/// The shape of a simulated network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How operations run.
    pub mode: Mode,
    /// The largest payload of a packet, bytes. An operation has at most 64 packets; a longer one
    /// has larger packets.
    pub packet_bytes: u64,
    /// How long a packet travels.
    pub latency: Range<Duration>,
    /// How fast a port sends, bytes in a second.
    pub bytes_per_second: u64,
    /// How long the target takes to put a packet into memory once it was checked.
    pub landing: Range<Duration>,
    /// After how long a lost packet is sent again.
    pub resend_after: Duration,
    /// How long a connection lives with a link that is cut.
    pub break_after: Duration,
    /// After how long a dead peer is noticed.
    pub death_noticed: Range<Duration>,
    /// How long a port takes to flush a cancelled operation out of its queue.
    pub flush: Range<Duration>,
    /// How many operations a port has under way at most.
    pub queue_depth: usize,
    /// The longest message, bytes.
    pub message_bytes_max: usize,
    /// How many windows a port has at most.
    pub windows_max: usize,
    /// Whether regions can be mapped, as on one host, or not, as across hosts.
    pub maps: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// How many entries the trace keeps.
    pub trace_entries: usize,
}

impl Config {
    /// A network of data-centre speed on which nothing goes wrong but order: packets of 4 KiB that
    /// travel 1 to 10 µs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let micros = Duration::from_micros;
        Self {
            seed,
            mode: Mode::Packets,
            packet_bytes: 4096,
            latency: micros(1)..micros(10),
            bytes_per_second: 12_500_000_000,
            landing: Duration::from_nanos(100)..micros(2),
            resend_after: micros(50),
            break_after: Duration::from_millis(40),
            death_noticed: micros(100)..Duration::from_millis(5),
            flush: micros(5)..micros(200),
            queue_depth: 256,
            message_bytes_max: 4096,
            windows_max: 4096,
            maps: true,
            faults: Faults::none(),
            trace_entries: 256,
        }
    }

    /// A network on which everything ends at once; see [`Mode::Null`].
    #[must_use]
    pub fn null(seed: u64) -> Self {
        Self { mode: Mode::Null, ..Self::new(seed) }
    }

    /// The same without mappings.
    #[must_use]
    pub fn unmapped(mut self) -> Self {
        self.maps = false;
        self
    }

    /// The same with faults.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }
}
