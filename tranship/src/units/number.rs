//! `NUMBER [UNIT]`, the shape sizes and durations share.

use std::fmt;

/// Why a size or a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    input: String,
    /// Counted in characters from 1.
    position: usize,
    reason: Reason,
    units: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    NoNumber,
    UnknownUnit(String),
    MissingUnit,
    TooLarge,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, position, reason, units } = self;
        match reason {
            Reason::NoNumber => {
                write!(f, "{input:?}: expected a number at character {position}, then {units}")
            }
            Reason::UnknownUnit(unit) => {
                write!(f, "{input:?}: unknown unit {unit:?} at character {position}; use {units}")
            }
            Reason::MissingUnit => {
                write!(f, "{input:?}: missing unit at character {position}; use {units}")
            }
            Reason::TooLarge => write!(f, "{input:?}: too large for 64 bits"),
        }
    }
}

impl std::error::Error for ParseError {}

/// The units of one quantity.
pub(super) struct Units {
    /// Name and how many of the smallest unit it is.
    pub(super) table: &'static [(&'static str, u64)],
    /// What a number without a unit means; `None` refuses it (unless it is zero).
    pub(super) bare: Option<u64>,
    /// The valid units, for messages.
    pub(super) names: &'static str,
}

impl Units {
    /// Reads `text` as a count of the smallest unit; a fraction of it is cut off.
    pub(super) fn parse(&self, text: &str) -> Result<u64, ParseError> {
        let fail = |rest: &str, reason| ParseError {
            input: text.to_owned(),
            position: text[..text.len() - rest.len()].chars().count() + 1,
            reason,
            units: self.names,
        };
        let start = text.trim_start();
        let (whole, rest) = split_digits(start);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() {
            return Err(fail(start, Reason::NoNumber));
        }
        let unit = rest.trim();
        let scale = if unit.is_empty() {
            let zero = whole.chars().chain(fraction.chars()).all(|digit| digit == '0');
            self.bare.or(zero.then_some(1)).ok_or_else(|| fail(rest, Reason::MissingUnit))?
        } else {
            self.table
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, scale)| *scale)
                .ok_or_else(|| fail(rest.trim_start(), Reason::UnknownUnit(unit.to_owned())))?
        };
        scaled(whole, fraction, scale).ok_or_else(|| fail(start, Reason::TooLarge))
    }

    /// The largest unit that divides `count` without a remainder, and how many of it.
    pub(super) fn exact(&self, count: u64) -> (u64, &'static str) {
        self.table
            .iter()
            .filter(|(_, scale)| count != 0 && count.is_multiple_of(*scale))
            .max_by_key(|(_, scale)| *scale)
            .map_or((count, self.table[0].0), |(name, scale)| (count / scale, *name))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction * scale`, rounded down, in integers: a float would lose bytes.
fn scaled(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    /// Digits beyond this cannot change a 64-bit result by one unit.
    const FRACTION_DIGITS_MAX: usize = 18;
    let whole: u64 = whole.parse().ok()?;
    let digits = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let (numerator, denominator) = match digits {
        "" => (0, 1),
        _ => (digits.parse::<u128>().ok()?, 10u128.pow(u32::try_from(digits.len()).ok()?)),
    };
    let part = u64::try_from(numerator * u128::from(scale) / denominator).ok()?;
    whole.checked_mul(scale)?.checked_add(part)
}
