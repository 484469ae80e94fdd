//! Structured logs on standard error, as text or as one JSON object a line.
//!
//! Every line names the spans it was written in with their fields, so that what belongs to one
//! request (`request{kind session request}`) can be found. A span must have no field `name`: in JSON it
//! would hide the name of the span.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::schema::Log;
use crate::config::{LogFormat, LogLevel};

/// The variable that overrides the level, by module if need be: `debug`,
/// `info,tranship_cache=trace`.
pub const VARIABLE: &str = "TRANSHIP_LOG";

/// A value of [`VARIABLE`] that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={value:?}: {why}; use a level such as debug, or module=level pairs")]
pub struct FilterError {
    value: String,
    #[source]
    why: ParseError,
}

/// Starts logging for the rest of the process; `verbose` is how often `-v` was given. Does nothing if it was
/// started before: the first start stays.
///
/// # Errors
/// When [`VARIABLE`] cannot be read.
pub fn start(log: &Log, verbose: u8) -> Result<(), FilterError> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let filter = filter(&directives, threshold(log.level, verbose))?;
    let subscriber = subscriber(log.format, filter, ansi, std::io::stderr);
    // Fails only when there is one already, which may stay.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn filter(directives: &str, level: LevelFilter) -> Result<EnvFilter, FilterError> {
    EnvFilter::builder()
        .with_default_directive(level.into())
        .parse(directives)
        .map_err(|why| FilterError { value: directives.to_owned(), why })
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    ansi: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => Box::new(builder.with_ansi(ansi).finish()),
        LogFormat::Json => Box::new(
            builder.json().with_current_span(false).with_span_list(true).with_ansi(false).finish(),
        ),
    }
}

/// The level of the configuration, lowered by one for each `-v`.
fn threshold(level: LogLevel, verbose: u8) -> LevelFilter {
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
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, directives: &str, ansi: bool) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let filter = filter(directives, LevelFilter::INFO).unwrap();
        let subscriber = subscriber(format, filter, ansi, move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::debug_span!("request", kind = "lookup", session = 7, request = 9);
            span.in_scope(|| tracing::info!(keys = 3, "answered"));
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_tell_the_request() {
        let line = logged(LogFormat::Json, "debug", true);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["fields"]["message"], "answered");
        assert_eq!(line["fields"]["keys"], 3);
        let span = &line["spans"][0];
        assert_eq!(
            (&span["name"], &span["kind"], &span["session"], &span["request"]),
            (&"request".into(), &"lookup".into(), &7.into(), &9.into())
        );
    }

    #[test]
    fn text_is_coloured_only_when_asked() {
        assert!(logged(LogFormat::Text, "", true).contains('\u{1b}'));
        let line = logged(LogFormat::Text, "debug", false);
        assert!(!line.contains('\u{1b}'), "{line:?}");
        assert!(line.contains("session=7") && line.contains("answered"), "{line}");
    }

    #[test]
    fn the_level_holds_until_a_directive_changes_it() {
        assert_eq!(logged(LogFormat::Text, "error", false), "");
        let told = filter("tranship=loud", LevelFilter::INFO).unwrap_err().to_string();
        assert!(told.starts_with("TRANSHIP_LOG=\"tranship=loud\": "), "{told}");
    }

    #[test]
    fn a_second_start_changes_nothing() {
        start(&Log { format: LogFormat::Json, ..Log::default() }, 0).unwrap();
        start(&Log::default(), 0).unwrap();
    }

    #[test]
    fn each_v_lowers_the_level_by_one() {
        assert_eq!(threshold(LogLevel::Error, 0), LevelFilter::ERROR);
        assert_eq!(threshold(LogLevel::Info, 1), LevelFilter::DEBUG);
        assert_eq!(threshold(LogLevel::Info, 200), LevelFilter::TRACE);
    }
}
