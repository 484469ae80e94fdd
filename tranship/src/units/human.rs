//! Quantities rounded for reading.

use std::time::Duration;

/// Bytes in the largest binary unit that keeps the number at 1 or more: `20.1 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    if power == 0 {
        return format!("{bytes} B");
    }
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    format!("{} {}", significant(value), UNITS[power])
}

/// A rate in GB/s (10⁹ bytes a second): `28.7 GB/s`; `-` when no time passed.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    if time.is_zero() {
        return "-".to_owned();
    }
    format!("{} GB/s", significant(bytes as f64 / 1e9 / time.as_secs_f64()))
}

/// A count with thousands separators: `288,014`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of a whole in percent: `38.2 %`; `-` of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 / whole as f64 * 100.0)
}

/// A time in the unit that fits: `6.1 µs`, `0.21 ms`, `1.7 s`, `1 m 12 s`, `2 h 5 m`.
#[must_use]
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match () {
        () if seconds >= 3600 => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        () if seconds >= 60 => format!("{} m {} s", seconds / 60, seconds % 60),
        () if seconds >= 1 => format!("{} s", significant(time.as_secs_f64())),
        () if time.as_nanos() >= 100_000 => format!("{} ms", significant(time.as_secs_f64() * 1e3)),
        () => format!("{} µs", significant(time.as_secs_f64() * 1e6)),
    }
}

/// Two decimals below 1, one below 100, none above.
fn significant(value: f64) -> String {
    match value {
        v if v < 0.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_for_reading() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(4 << 30), "4.0 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(rate(28_700_000_000, Duration::from_secs(1)), "28.7 GB/s");
        assert_eq!(rate(1, Duration::ZERO), "-");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(288_014), "288,014");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(time(Duration::from_nanos(6_100)), "6.1 µs");
        assert_eq!(time(Duration::from_micros(210)), "0.21 ms");
        assert_eq!(time(Duration::from_millis(1_720)), "1.7 s");
        assert_eq!(time(Duration::from_secs(72)), "1 m 12 s");
        assert_eq!(time(Duration::from_secs(7_500)), "2 h 5 m");
    }
}
