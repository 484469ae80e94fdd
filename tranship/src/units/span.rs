//! A length of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::ParseError;
use super::number::Units;

/// A length of time, written `100us`, `50ms`, `1.5s`, `2m` or `1h`.
///
/// ```
/// use std::time::Duration;
/// use tranship_cli::units::Span;
/// assert_eq!("1.5s".parse::<Span>()?.duration(), Duration::from_millis(1500));
/// # Ok::<(), tranship_cli::units::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    nanos: u64,
}

const UNITS: Units = Units {
    table: &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ],
    bare: None,
    names: "ns, us, ms, s, m or h",
};

impl Span {
    /// So many microseconds.
    #[must_use]
    pub const fn micros(count: u64) -> Self {
        Self { nanos: count * 1_000 }
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self { nanos: count * 1_000_000 }
    }

    /// So many seconds.
    #[must_use]
    pub const fn secs(count: u64) -> Self {
        Self { nanos: count * 1_000_000_000 }
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        UNITS.parse(text).map(|nanos| Self { nanos })
    }
}

impl fmt::Display for Span {
    /// Exact: parses back to the same span.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = UNITS.exact(self.nanos);
        f.pad(&format!("{count}{}", if unit == "µs" { "us" } else { unit }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_type() {
        for (text, span) in [
            ("0", Span::default()),
            ("100us", Span::micros(100)),
            ("100 µs", Span::micros(100)),
            ("50ms", Span::millis(50)),
            ("1.5s", Span::millis(1500)),
            ("2m", Span::secs(120)),
            ("1h", Span::secs(3600)),
        ] {
            assert_eq!(text.parse(), Ok(span), "{text}");
        }
        assert_eq!(Span::micros(50).to_string(), "50us");
    }

    #[test]
    fn a_bare_number_is_refused() {
        let message = "50".parse::<Span>().unwrap_err().to_string();
        assert_eq!(message, "\"50\": missing unit at character 3; use ns, us, ms, s, m or h");
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(nanos: u64) {
            let span = Span { nanos };
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Span>();
        }
    }
}
