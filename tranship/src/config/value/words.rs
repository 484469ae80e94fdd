//! Settings that are one of some words.

use std::fmt::{self, Display};

use super::{Value, expected};

/// Declares an enum whose values are words.
macro_rules! words {
    ($(
        $(#[$about:meta])*
        $Name:ident: $form:literal { $($(#[$help:meta])* $Word:ident = $text:literal,)+ }
    )+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Name { $($(#[$help])* $Word,)+ }

        impl Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$Word => $text,)+ })
            }
        }

        impl Value for $Name {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $($text => Ok(Self::$Word),)+
                    _ => Err(expected::<Self>(text)),
                }
            }
        }
    )+};
}

words! {
    /// Whether memory is backed by huge pages.
    HugePages: "auto, on or off" {
        /// As far as they are to be had.
        Auto = "auto",
        /// Required: starting fails without them.
        On = "on",
        /// Never.
        Off = "off",
    }

    /// Which blocks a tier below memory takes in.
    IngestName: "all, hot or evicted" {
        /// Every block, as soon as it is stored.
        All = "all",
        /// Blocks that are used again.
        Hot = "hot",
        /// Blocks that leave memory.
        Evicted = "evicted",
    }

    /// What reads and writes a device.
    DiskIo: "auto, uring or threads" {
        /// io_uring where it is to be had.
        Auto = "auto",
        /// io_uring, or starting fails.
        Uring = "uring",
        /// A pool of threads.
        Threads = "threads",
    }

    /// How blocks are compressed in a bucket.
    CodecName: "off, auto, zstd or lz4" {
        /// Not at all.
        Off = "off",
        /// If it is measured to pay.
        Auto = "auto",
        /// Byte planes and zstd.
        Zstd = "zstd",
        /// Byte planes and lz4.
        Lz4 = "lz4",
    }

    /// What a worker does when nothing happens.
    Polling: "adaptive or busy" {
        /// Spins, then sleeps.
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
    }

    /// Shape of log lines.
    LogFormat: "text or json" {
        /// For people.
        Text = "text",
        /// One object a line.
        Json = "json",
    }

    /// Severity of log lines.
    LogLevel: "error, warn, info, debug or trace" {
        /// Something failed.
        Error = "error",
        /// Something is worse than it should be.
        Warn = "warn",
        /// What an operator wants to know.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
