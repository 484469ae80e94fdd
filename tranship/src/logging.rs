//! Structured logs on standard error, text or JSON, with levels from the configuration and `-v`.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::schema::Log;
use crate::config::{LogFormat, LogLevel};

/// Starts logging for the rest of the process; `verbose` is how often `-v` was given.
///
/// `TRANSHIP_FILTER` adds `tracing` directives such as `tranship_cache=trace`. A second call has
/// no effect: the first subscriber stays.
pub fn start(log: &Log, verbose: u8) {
    let filter = EnvFilter::builder()
        .with_default_directive(level(log.level, verbose).into())
        .with_env_var("TRANSHIP_FILTER")
        .from_env_lossy();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(anstream::stderr)
        .with_span_events(FmtSpan::NONE);
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    drop(started);
}

fn level(level: LogLevel, verbose: u8) -> LevelFilter {
    const LEVELS: [LevelFilter; 5] = [
        LevelFilter::ERROR,
        LevelFilter::WARN,
        LevelFilter::INFO,
        LevelFilter::DEBUG,
        LevelFilter::TRACE,
    ];
    LEVELS[(level as usize + usize::from(verbose)).min(LEVELS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_lowers_the_level_by_one() {
        assert_eq!(level(LogLevel::Error, 0), LevelFilter::ERROR);
        assert_eq!(level(LogLevel::Info, 1), LevelFilter::DEBUG);
        assert_eq!(level(LogLevel::Info, 200), LevelFilter::TRACE);
    }
}
