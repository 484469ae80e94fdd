//! A number of tokens.

use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::number::Units;

/// A number of tokens, written `1.5M`, `3100000`, `400k` or `2G` (powers of ten).
///
/// ```
/// use tranship_cli::units::Tokens;
/// assert_eq!("1.5M".parse::<Tokens>()?.count(), 1_500_000);
/// assert_eq!(Tokens::new(3_100_000).to_string(), "3100k");
/// # Ok::<(), tranship_cli::units::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tokens(u64);

const UNITS: Units = Units {
    table: &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)],
    bare: Some(1),
    names: "k, M, G or nothing",
};

impl Tokens {
    /// So many tokens.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }

    /// For reading, to a tenth: `3.1M`. It does not parse back to the same number.
    #[must_use]
    pub fn rounded(self) -> String {
        let largest = UNITS.table.iter().rev().find(|(_, scale)| *scale <= self.0.max(1));
        let (unit, scale) = largest.copied().unwrap_or(("", 1));
        let value = (self.0 as f64 / scale as f64 * 10.0).round() / 10.0;
        format!("{value}{unit}")
    }
}

impl FromStr for Tokens {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        UNITS.parse(text).map(Self)
    }
}

impl fmt::Display for Tokens {
    /// Exact: parses back to the same number.
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
        for (text, count) in
            [("1.5M", 1_500_000), ("3100000", 3_100_000), ("400 k", 400_000), ("2G", 2_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Tokens::new(count)), "{text}");
        }
        assert_eq!(Tokens::new(3_149_000).rounded(), "3.1M");
        assert_eq!([Tokens::new(0).rounded(), Tokens::new(999).rounded()], ["0", "999"]);
        let message = |text: &str| text.parse::<Tokens>().unwrap_err().to_string();
        assert_eq!(
            message("1.5m"),
            "\"1.5m\": unknown unit \"m\" at character 4; use k, M, G or nothing"
        );
        assert!(message("many").starts_with("\"many\": expected a number at character 1"));
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(count: u64) {
            let tokens = Tokens::new(count);
            prop_assert_eq!(tokens.to_string().parse::<Tokens>(), Ok(tokens));
        }
    }
}
