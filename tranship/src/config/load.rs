//! From the four places to one effective configuration.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::schema::{Config, Tenant};
use super::section::{Section, Setting, settings};
use super::{Error, Flags, LogFlags, file};
use crate::suggest;

/// Where an effective value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The schema.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.pad(name),
        }
    }
}

/// Everything a configuration can be loaded from.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// The file asked for; `None` looks in the usual places.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags of the command.
    pub flags: Option<&'a Flags>,
    /// Log flags of any command.
    pub log: Option<&'a LogFlags>,
}

/// A configuration and the source of each value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// One for each of [`settings`].
    sources: Vec<Source>,
    /// One for each tenant.
    tenant_sources: Vec<Source>,
}

impl Loaded {
    /// Loads and checks a configuration.
    ///
    /// # Errors
    /// See [`Error`]: each names the file and line, the variable or the flag.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, Error> {
        let variable = |wanted: &str| {
            inputs.environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        let mut loaded = Self {
            config: Config::default(),
            file: inputs.file.map(Path::to_owned).or_else(|| {
                variable("TRANSHIP_CONFIG").map(PathBuf::from).or_else(|| usual_file(&variable))
            }),
            sources: vec![Source::Default; settings().len()],
            tenant_sources: Vec::new(),
        };
        if let Some(path) = loaded.file.clone() {
            file::apply(&mut loaded, &path)?;
        }
        loaded.apply_environment(inputs)?;
        let flags = inputs.flags.into_iter().flat_map(Flags::given);
        for (setting, text) in flags.chain(inputs.log.into_iter().flat_map(LogFlags::given)) {
            loaded.set(setting, text, Source::Flag(format!("--{}", setting.flag)))?;
        }
        loaded.config.check()?;
        Ok(loaded)
    }

    /// Each setting with its effective value and source, in the order of the schema.
    pub fn explain(&self) -> impl Iterator<Item = (&'static Setting, String, &Source)> {
        settings().iter().zip(&self.sources).map(|(setting, source)| {
            let section = self.config.section(setting.section);
            let value = section.and_then(|section| section.get(setting.field.name));
            (setting, value.unwrap_or_default(), source)
        })
    }

    /// Each tenant's fields: key, value, source and help.
    pub fn explain_tenants(&self) -> impl Iterator<Item = (String, String, &Source, &'static str)> {
        let tenants = self.config.tenants.iter().zip(&self.tenant_sources).enumerate();
        tenants.flat_map(|(index, (tenant, source))| {
            tenant.fields().iter().map(move |field| {
                let value = tenant.get(field.name).unwrap_or_default();
                (format!("tenant[{index}].{}", field.name), value, source, field.help)
            })
        })
    }

    pub(super) fn set(
        &mut self,
        setting: &Setting,
        text: &str,
        source: Source,
    ) -> Result<(), Error> {
        let result = match self.config.section_mut(setting.section) {
            Some(section) => section.set(setting.field.name, text),
            None => Err(format!("{text:?}: no section {:?}", setting.section)),
        };
        result.map_err(|reason| Error::Value {
            place: match &source {
                Source::File { .. } => format!("{source}: {}", setting.key),
                _ => source.to_string(),
            },
            reason,
        })?;
        if let Some(index) = settings().iter().position(|known| known.key == setting.key) {
            self.sources[index] = source;
        }
        Ok(())
    }

    pub(super) fn add_tenant(&mut self, tenant: Tenant, source: Source) {
        self.config.tenants.push(tenant);
        self.tenant_sources.push(source);
    }

    fn apply_environment(&mut self, inputs: &Inputs<'_>) -> Result<(), Error> {
        for (name, value) in &inputs.environment {
            let Some(name) = name.to_str() else { continue };
            let variable = match name {
                TOKEN_VARIABLE => "TRANSHIP_TCP_TOKEN",
                _ if names_a_section(name) => name,
                _ => continue,
            };
            let Some(setting) = settings().iter().find(|setting| setting.variable == variable)
            else {
                let known = settings().iter().map(|setting| setting.variable.as_str());
                let hint = suggest::hint(name, known);
                return Err(Error::UnknownVariable { name: name.to_owned(), hint });
            };
            let source = Source::Environment(name.to_owned());
            let text = value.to_str().ok_or_else(|| Error::Value {
                place: name.to_owned(),
                reason: format!("{value:?}: not UTF-8"),
            })?;
            self.set(setting, text, source)?;
        }
        Ok(())
    }
}

/// The short name of the variable of `tcp.token`.
const TOKEN_VARIABLE: &str = "TRANSHIP_TOKEN";

/// Whether a variable is `TRANSHIP_SECTION_…`; others (`TRANSHIP_CONFIG`) are not settings.
fn names_a_section(variable: &str) -> bool {
    let Some(rest) = variable.strip_prefix("TRANSHIP_") else { return false };
    Config::SECTIONS.iter().any(|section| {
        rest.strip_prefix(section.to_uppercase().as_str())
            .is_some_and(|field| field.starts_with('_'))
    })
}

/// `$XDG_CONFIG_HOME/tranship/config.toml`, `~/.config/tranship/config.toml` or
/// `/etc/tranship/config.toml`: the first that exists.
fn usual_file<'a>(variable: &impl Fn(&str) -> Option<&'a OsString>) -> Option<PathBuf> {
    let home = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(home).join(".config")));
    [home, Some(PathBuf::from("/etc"))]
        .into_iter()
        .flatten()
        .map(|directory| directory.join("tranship/config.toml"))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::units::Size;

    fn flags(args: &[&str]) -> Flags {
        let command = Flags::augment_args(clap::Command::new("test").no_binary_name(true));
        Flags::from_arg_matches(&command.get_matches_from(args)).unwrap()
    }

    fn load(file: &str, environment: &[(&str, &str)], args: &[&str]) -> Result<Loaded, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tranship.toml");
        std::fs::write(&path, file).unwrap();
        Loaded::load(&Inputs {
            file: Some(&path),
            environment: environment.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            flags: Some(&flags(args)),
            log: None,
        })
    }

    fn message(file: &str, environment: &[(&str, &str)], args: &[&str]) -> String {
        let text = load(file, environment, args).unwrap_err().to_string();
        assert!(!text.contains('\n'), "{text}");
        text.split_once("tranship.toml").map_or(text.clone(), |(_, rest)| rest.to_owned())
    }

    #[test]
    fn later_places_win() {
        let file = "[dram]\ncapacity = \"1GiB\"\nprefault = false\n[limits]\nmax_clients = 7\n";
        let environment = [("TRANSHIP_DRAM_CAPACITY", "2GiB"), ("TRANSHIP_TRANSPORT_SPIN", "9us")];
        let loaded = load(file, &environment, &["--capacity", "3GiB"]).unwrap();
        assert_eq!(loaded.config.dram.capacity, Size::gib(3));
        assert!(!loaded.config.dram.prefault);
        assert_eq!(loaded.config.limits.max_clients, 7);
        let source = |key: &str| {
            loaded.explain().find(|(setting, ..)| setting.key == key).unwrap().2.clone()
        };
        assert_eq!(source("dram.capacity"), Source::Flag("--dram-capacity".into()));
        assert_eq!(source("transport.spin"), Source::Environment("TRANSHIP_TRANSPORT_SPIN".into()));
        assert!(matches!(source("limits.max_clients"), Source::File { line: 5, .. }));
        assert_eq!(source("policy.name"), Source::Default);
    }

    #[test]
    fn unknown_names_are_errors_with_a_suggestion() {
        assert_eq!(
            message("[dram]\n\ncapcity = 1\n", &[], &[]),
            ":3: unknown key \"dram.capcity\"; did you mean \"dram.capacity\"?"
        );
        assert_eq!(
            message("[dramm]\n", &[], &[]),
            ":1: unknown key \"dramm\"; did you mean \"dram\"?"
        );
        assert_eq!(
            message("", &[("TRANSHIP_DRAM_CAPASITY", "1")], &[]),
            "unknown environment variable TRANSHIP_DRAM_CAPASITY; did you mean \
             \"TRANSHIP_DRAM_CAPACITY\"?"
        );
    }

    #[test]
    fn bad_values_name_their_place() {
        let bad = "\"4Gb\": unknown unit \"Gb\" at character 2; use B, KB,";
        assert!(
            message("[dram]\ncapacity = \"4Gb\"", &[], &[])
                .starts_with(&format!(":2: dram.capacity {bad}"))
        );
        assert!(
            message("", &[("TRANSHIP_DRAM_CAPACITY", "4Gb")], &[])
                .starts_with(&format!("TRANSHIP_DRAM_CAPACITY {bad}"))
        );
        assert!(
            message("", &[], &["--capacity", "4Gb"]).starts_with(&format!("--dram-capacity {bad}"))
        );
        assert!(message("[dram\n", &[], &[]).starts_with(":1: not TOML: "));
        assert_eq!(message("dram = 3", &[], &[]), ":1: dram is a single value; expected a table");
        assert_eq!(
            message("[dram]\ncapacity = [1]", &[], &[]),
            ":2: dram.capacity is an array; expected a single value"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(
            message("[dram]\nlow_watermark = \"99%\"", &[], &[]),
            "dram.low_watermark 99% is not below dram.high_watermark 95%; lower it"
        );
        let tenants =
            "[dram]\ncapacity = \"1GiB\"\n[[tenant]]\nname = \"a\"\ncapacity = \"2GiB\"\n";
        assert!(message(tenants, &[], &[]).starts_with("tenants claim 2GiB together"));
        assert_eq!(message("[[tenant]]\n", &[], &[]), "tenant 1 has no name");
        for segment in ["0B", "3MB", "1000B", "1GiB"] {
            let text = message(&format!("[nvme]\nsegment = \"{segment}\""), &[], &[]);
            assert!(
                text.starts_with("nvme.segment is ") && text.contains("; use 32KiB to 256MiB"),
                "{text}"
            );
        }
        for (wrong, told) in [
            ("[nvme]\ncapacity = \"0B\"", "nvme.capacity is 0B; use auto"),
            (
                "[nvme]\nwrite_budget = \"1MiB\"",
                "nvme.write_budget is 1MiB a day, less than a segment of 64MiB",
            ),
            (
                "[object]\ncapacity = \"1MiB\"",
                "object.capacity is 1MiB, less than one object.pack of ",
            ),
        ] {
            let text = message(wrong, &[], &[]);
            assert!(text.starts_with(told), "{text}");
        }
    }

    #[test]
    fn tenants_are_read_and_their_tokens_hidden() {
        let file = "[[tenant]]\nname = \"a\"\ntoken = \"swordfish\"\n[[tenant]]\nname = \"b\"\n";
        let loaded = load(file, &[], &[]).unwrap();
        assert_eq!(loaded.config.tenants.len(), 2);
        let token = loaded.config.tenants[0].token.as_ref().unwrap();
        assert_eq!(token.reveal(), "swordfish");
        let shown: Vec<_> = loaded.explain_tenants().map(|(key, value, ..)| (key, value)).collect();
        assert_eq!(shown[2], ("tenant[0].token".to_owned(), "(hidden)".to_owned()));
        assert_eq!(
            message("[[tenant]]\nnme = \"a\"\n", &[], &[]),
            ":2: unknown key \"tenant.nme\"; did you mean \"name\"?"
        );
    }

    #[test]
    fn every_default_reads_back() {
        let mut config = Config::default();
        for setting in settings() {
            let value = config.section(setting.section).unwrap().get(setting.field.name).unwrap();
            let section = config.section_mut(setting.section).unwrap();
            assert_eq!(section.set(setting.field.name, &value), Ok(()), "{}", setting.key);
        }
        assert_eq!(config, Config::default());
    }

    /// Lines that are close to a configuration file.
    const NEARLY_TOML: &str = concat!(
        r"(\[(dram|tenant|log)\]\n|\[\[tenant\]\]\n|.{0,5}|",
        r#"(name|capacity|level|x) = ("[a-zA-Z0-9]{0,4}"|[0-9.]{0,5}|\[\]|\{\})\n){0,8}"#,
    );

    proptest::proptest! {
        #[test]
        fn no_file_panics(text in NEARLY_TOML) {
            if let Err(error) = load(&text, &[], &[]) {
                proptest::prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }

    #[test]
    fn a_capacity_beyond_memory_says_what_fits() {
        let mut config = Config::default();
        config.dram.capacity = Size::gib(64);
        let memory =
            crate::doctor::host::Memory { total: Size::gib(23), available: Size::mib(20_582) };
        assert_eq!(
            config.check_memory(&memory).unwrap_err().to_string(),
            "arena of 64.0 GiB does not fit: 23.0 GiB of memory, 20.1 GiB free; \
             use --capacity 15GiB or less"
        );
    }
}
