//! How the fabric is opened.

use std::sync::Arc;
use std::time::Duration;

use tranship_ofi_sys as sys;

use super::domain::Domain;
use super::info::Info;
use crate::address::Kind;
use crate::fabric::rdma::{Device, Rdma, Settings};
use crate::fabric::{Fabric, OpenError, Provider, Setup, tcp};

/// Providers that are taken where none is named, the best first. Those for one host are named.
const PROVIDERS: [&str; 5] = ["efa", "cxi", "psm3", "verbs;ofi_rxm", "tcp;ofi_rxm"];
/// Rails that are taken of one provider at most.
const RAILS_MAX: usize = 8;

/// How to open the libfabric fabric.
///
/// ```no_run
/// use tranship_transport::fabric::{ofi, tcp};
///
/// let control = tcp::Config::new().listen("10.0.0.7:7420").token("secret");
/// let fabric = ofi::Config::new().provider("efa").control(control);
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    settings: Settings,
    provider: Option<String>,
    domain: Option<String>,
    source: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults: the best provider there is, all of its domains.
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(Kind::Ofi), provider: None, domain: None, source: None }
    }

    /// The provider, as libfabric calls it: `efa`, `tcp;ofi_rxm`, `shm`.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// Only this domain of the provider: an interface or a device, as `fi_info(1)` calls it.
    #[must_use]
    pub fn domain(mut self, name: impl Into<String>) -> Self {
        self.domain = Some(name.into());
        self
    }

    /// The address of this host that rails of IP networks use; the host that is listened at
    /// unless told otherwise.
    #[must_use]
    pub fn source(mut self, host: impl Into<String>) -> Self {
        self.source = Some(host.into());
        self
    }

    /// The connections that the rails stand on: where peers dial, what they have to know, and how soon
    /// the dead are noticed. A port of the loopback interface that the system chooses, without a
    /// token, unless told otherwise.
    #[must_use]
    pub fn control(mut self, control: tcp::Config) -> Self {
        self.settings.control = control;
        self
    }

    /// How long peers have to make their channels before payload goes over TCP; 5 s unless told
    /// otherwise.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.settings.join_timeout = timeout;
        self
    }

    /// The rails that these settings mean.
    fn infos(&self) -> Result<Vec<Info>, String> {
        let library = sys::Fabric::load().map_err(|error| error.to_string())?;
        let library = Arc::new(library);
        let host = self.settings.control.listen_host();
        let source = self.source.as_deref().or(host.as_deref());
        let of = |provider: &str| {
            let is_ip = provider.contains("tcp") || provider.contains("udp");
            let infos = Info::all(&library, Some(provider), source.filter(|_| is_ip))
                .map_err(|why| format!("{why}; `tranship doctor` says which providers can"))?;
            let mut rails: Vec<Info> = Vec::new();
            for info in infos {
                // One of each domain: the first is the one that the provider likes best.
                let (domain, name) = (info.domain(), info.provider());
                let wanted = self.domain.as_ref().is_none_or(|wanted| *wanted == domain);
                let new = rails.iter().all(|other| other.domain() != domain);
                if wanted && new && name == provider && rails.len() < RAILS_MAX {
                    rails.push(info);
                }
            }
            if source.is_none() && rails.iter().any(|rail| rail.domain() != "lo") {
                // Peers of other hosts would find themselves there.
                rails.retain(|rail| rail.domain() != "lo");
            }
            if rails.is_empty() {
                return Err(match &self.domain {
                    Some(domain) => format!("{provider} has no domain {domain:?}; see fi_info(1)"),
                    None => format!("no endpoint of {provider}"),
                });
            }
            Ok(rails)
        };
        match &self.provider {
            Some(provider) => of(provider),
            None => PROVIDERS.iter().find_map(|provider| of(provider).ok()).ok_or_else(|| {
                format!(
                    "none of {} can be used here; `tranship doctor` says what libfabric finds",
                    PROVIDERS.join(", ")
                )
            }),
        }
    }

    fn fabric(&self, setup: &Setup) -> Result<Rdma, String> {
        let why = match self.provider {
            Some(_) => "it was asked for",
            None => "the first of those that reach other hosts",
        };
        let devices = self
            .infos()?
            .into_iter()
            .map(|info| Ok(Box::new(Domain::open(info, why)?) as Box<dyn Device>))
            .collect::<Result<_, String>>()?;
        Rdma::open(self.settings.clone(), devices, setup)
    }
}

impl Provider for Config {
    fn kind(&self) -> Kind {
        Kind::Ofi
    }

    fn open(self: Box<Self>, setup: &Setup) -> Result<Box<dyn Fabric>, OpenError> {
        self.fabric(setup)
            .map(|fabric| Box::new(fabric) as Box<dyn Fabric>)
            .map_err(|what| OpenError { kind: Kind::Ofi, what })
    }
}
