//! The fabrics of `bench transport`, from its flags and the configuration.

use crate::bench::transport::Fabric;
use crate::commands::Error;
use crate::config::{Address, Config, Secret, Value};
use crate::net;

/// Which rails of a fabric are measured.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Rails {
    /// Provider of ofi as fi_info(1) calls it [default: ofi.provider of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
    /// Devices of verbs, NAME or NAME:PORT with commas in between, or the domain of ofi [default:
    /// verbs.devices or ofi.domain of the configuration]
    #[arg(long, value_name = "NAMES")]
    pub(super) device: Option<String>,
}

impl Rails {
    /// What of it was given, as flags of another process.
    pub(super) fn flags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let flags = [("--provider", &self.provider), ("--device", &self.device)];
        flags.into_iter().filter_map(|(flag, value)| Some((flag, value.as_deref()?)))
    }

    /// The configuration with these rails in it.
    fn apply(&self, fabric: &str, mut config: Config) -> Result<Config, Error> {
        let usage = |flag: &'static str| move |why| Error::Usage(format!("{flag} {why}"));
        let given = |flag: &str, of: &str| Error::Usage(format!("{flag} is for --fabric {of}"));
        if let Some(provider) = &self.provider {
            if fabric != "ofi" {
                return Err(given("--provider", "ofi"));
            }
            config.ofi.provider = Value::read(provider).map_err(usage("--provider"))?;
        }
        match (&self.device, fabric) {
            (None, _) => {}
            (Some(names), "verbs") => {
                config.verbs.devices = Value::read(names).map_err(usage("--device"))?;
            }
            (Some(name), "ofi") => {
                config.ofi.domain = Value::read(name).map_err(usage("--device"))?;
            }
            (Some(_), _) => return Err(given("--device", "verbs or ofi")),
        }
        Ok(config)
    }

    /// A fabric by name: listening at HOST:PORT, or only to dial with.
    pub(super) fn fabric(
        &self,
        name: &str,
        config: Config,
        (listen, secret): (Option<&str>, Option<&Secret>),
        streams: u8,
    ) -> Result<Fabric, Error> {
        let config = self.apply(name, config)?;
        let at = |endpoint: &str| {
            format!("{name}://{endpoint}")
                .parse::<Address>()
                .map_err(|error| Error::Usage(error.to_string()))
        };
        let listen = if name == "shm" { None } else { listen.map(at).transpose()? };
        let listen = listen.as_ref();
        Ok(match name {
            "shm" => Fabric::Shm,
            "verbs" => Fabric::Verbs(net::verbs(&config, listen, secret)),
            "ofi" => Fabric::Ofi(net::ofi(&config, listen, secret)),
            _ => Fabric::Tcp { config: net::tcp(&config, listen, secret), streams },
        })
    }
}
