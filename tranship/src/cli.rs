//! The command line: global options, parsing, and the way out.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, ColorChoice, CommandFactory, FromArgMatches, Parser};
use serde::Serialize;
use serde_json::json;

use crate::commands::{Command, Context};
use crate::config::LogFlags;
use crate::exit::{self, Exit};
use crate::output::{self, Output, style};

/// Moves KV cache blocks between engines, memories and machines.
#[derive(Debug, Parser)]
#[command(
    name = "tranship",
    bin_name = "tranship",
    version,
    arg_required_else_help = true,
    after_help = exit::HELP,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Print results as JSON, one versioned object a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Use colours: auto means on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
    /// Log more; twice for traces
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Configuration file [env: TRANSHIP_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Flags of the `[log]` settings.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let json = args.iter().any(|arg| arg == "--json");
    let parsed = Cli::command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => run(cli).into(),
        Err(error) => usage(&error, json).into(),
    }
}

fn run(cli: Cli) -> Exit {
    let Cli { globals, command } = cli;
    match globals.color {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let context = Context { output: Output::new(globals.json), globals };
    match command.run(&context) {
        Ok(exit) => exit,
        // Whoever read our output has seen enough (`tranship … | head`).
        Err(error) if error.is_closed_pipe() => Exit::Done,
        Err(error) => {
            report(&error.to_string(), error.kind(), error.exit(), context.output.is_json());
            error.exit()
        }
    }
}

/// What a failure looks like with `--json`.
#[derive(Serialize)]
struct Failure<'a> {
    kind: &'a str,
    message: &'a str,
    exit: u8,
}

/// One line on standard error. It may be closed; the exit code still tells.
fn report(message: &str, kind: &str, exit: Exit, json: bool) {
    let mut stderr = anstream::stderr().lock();
    let message = message.replace('\n', " ");
    let _ = if json {
        let failure = Failure { kind, message: &message, exit: exit as u8 };
        writeln!(stderr, "{}", output::object("error", &failure))
    } else {
        let bad = style::BAD;
        writeln!(stderr, "{bad}error:{bad:#} {message}")
    };
}

/// Help and version are results; anything else is one line of error.
fn usage(error: &clap::Error, json: bool) -> Exit {
    match error.kind() {
        ErrorKind::DisplayVersion if json => {
            let version = json!({ "version": env!("CARGO_PKG_VERSION") });
            // Help and version may be cut off by whoever reads them, as other results.
            let _ = Output::new(true).object("version", &version);
            Exit::Done
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            Exit::Usage
        }
        _ => {
            report(&one_line(error), "usage", Exit::Usage, json);
            Exit::Usage
        }
    }
}

/// clap's message without the usage block, its tips joined into the sentence.
fn one_line(error: &clap::Error) -> String {
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        return "no command given; see tranship --help".to_owned();
    }
    // A value with a reason of its own: the reason already quotes the value.
    if let (ErrorKind::ValueValidation, Some(reason), Some(flag)) =
        (error.kind(), std::error::Error::source(error), error.get(ContextKind::InvalidArg))
    {
        let flag = flag.to_string();
        return format!("{} {reason}", flag.split_whitespace().next().unwrap_or(&flag));
    }
    let text = error.render().to_string();
    let mut parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect();
    if let ([_], ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument) =
        (&*parts, error.kind())
    {
        parts.push("see tranship --help");
    }
    parts.join("; ").replace(":; ", ": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line() {
        for args in [
            &["tranship", "doctr"][..],
            &["tranship", "--bogus"],
            &["tranship", "completions"],
            &["tranship", "completions", "nush"],
            &["tranship", "trace", "synth", "--requests", "x"],
        ] {
            let error = Cli::try_parse_from(args).unwrap_err();
            let line = one_line(&error);
            assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
        }
    }
}
