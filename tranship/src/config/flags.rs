//! The schema as command-line flags.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::section::{Setting, settings};

/// Flags of every setting except those of `[log]`, for commands that start a daemon.
#[derive(Debug, Clone, Default)]
pub struct Flags(Given);

/// Flags of the `[log]` settings, for every command.
#[derive(Debug, Clone, Default)]
pub struct LogFlags(Given);

/// The flags that were given, with their texts.
type Given = Vec<(&'static Setting, String)>;

impl Flags {
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Setting, &str)> {
        self.0.iter().map(|(setting, text)| (*setting, text.as_str()))
    }
}

impl LogFlags {
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Setting, &str)> {
        self.0.iter().map(|(setting, text)| (*setting, text.as_str()))
    }
}

fn is_log(setting: &Setting) -> bool {
    setting.section == "log"
}

fn chosen(log: bool) -> impl Iterator<Item = &'static Setting> {
    settings().iter().filter(move |setting| is_log(setting) == log)
}

fn augment(command: Command, log: bool) -> Command {
    chosen(log).fold(command, |command, setting| {
        let flag = Arg::new(setting.key.as_str())
            .long(setting.flag.as_str())
            .visible_aliases(setting.field.short_flag)
            .value_name("VALUE")
            .help(setting.field.help)
            .long_help(format!("{}; expects {}", setting.field.help, setting.field.form))
            .global(log);
        let flag = if setting.field.list { flag.action(ArgAction::Append) } else { flag };
        let flag = match setting.field.switch {
            true => flag.num_args(0..=1).default_missing_value("true"),
            false => flag,
        };
        command.arg(flag.help_heading(if log { "Global options" } else { "Settings" }))
    })
}

fn collect(matches: &ArgMatches, log: bool) -> Given {
    chosen(log)
        .filter_map(|setting| {
            let texts: Vec<&str> =
                matches.get_many::<String>(&setting.key)?.map(String::as_str).collect();
            Some((setting, texts.join(",")))
        })
        .collect()
}

macro_rules! clap_args {
    ($($Flags:ident: $log:literal),+) => {$(
        impl Args for $Flags {
            fn augment_args(command: Command) -> Command {
                augment(command, $log)
            }

            fn augment_args_for_update(command: Command) -> Command {
                augment(command, $log)
            }
        }

        impl FromArgMatches for $Flags {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(collect(matches, $log)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = collect(matches, $log);
                Ok(())
            }
        }
    )+};
}

clap_args!(Flags: false, LogFlags: true);
