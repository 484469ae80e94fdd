//! A number of bytes.

use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::number::Units;

/// A number of bytes, written `4GiB`, `512 MiB`, `1.5GiB`, `1GB` (10⁹) or plain bytes.
///
/// ```
/// use tranship_cli::units::Size;
/// assert_eq!("1.5GiB".parse::<Size>()?.bytes(), 3 << 29);
/// assert_eq!("1 GB".parse::<Size>()?.bytes(), 1_000_000_000);
/// assert_eq!(Size::gib(4).to_string(), "4GiB");
/// # Ok::<(), tranship_cli::units::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

const UNITS: Units = Units {
    table: &[
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    bare: Some(1),
    names: "B, KB, MB, GB, TB, KiB, MiB, GiB or TiB",
};

impl Size {
    /// A size of so many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of so many KiB (2¹⁰ bytes).
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// A size of so many MiB (2²⁰ bytes).
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// A size of so many GiB (2³⁰ bytes).
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        UNITS.parse(text).map(Self)
    }
}

impl fmt::Display for Size {
    /// Exact: parses back to the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = UNITS.exact(self.0);
        f.pad(&format!("{count}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_type() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4GiB", 4 << 30),
            ("4 GiB", 4 << 30),
            (" 512MiB ", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
            ("0.1KB", 100),
            ("16777215TiB", 16_777_215 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size::new(bytes)), "{text}");
        }
    }

    #[test]
    fn errors_name_input_position_and_units() {
        let message = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        assert_eq!(
            message("4Gb"),
            "\"4Gb\": unknown unit \"Gb\" at character 2; \
             use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"
        );
        assert!(message("").starts_with("\"\": expected a number at character 1"));
        assert!(message("-1").starts_with("\"-1\": expected a number at character 1"));
        assert!(message("4 µB").contains("unknown unit \"µB\" at character 3"));
        assert_eq!(message("16777216TiB"), "\"16777216TiB\": too large for 64 bits");
        assert_eq!(
            message("99999999999999999999"),
            "\"99999999999999999999\": too large for 64 bits"
        );
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(bytes: u64) {
            let size = Size::new(bytes);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }

        #[test]
        fn round_sizes_print_exactly(count in 0u64..1 << 20, shift in 0u32..44) {
            let size = Size::new(count << shift);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn no_near_miss_panics(text in "[0-9]{0,30}[.]?[0-9]{0,30} ?[KMGTiB]{0,4}") {
            let _ = text.parse::<Size>();
        }
    }
}
