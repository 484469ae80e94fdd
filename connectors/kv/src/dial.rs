//! The connection to a daemon, as adapters of other languages describe it.

use std::time::Duration;

use tranship_cache::client::daemon::{Address, AddressError};
use tranship_cache::client::{Client, Error};
use tranship_cache::identity::Identity;
use tranship_transport::fabric::{ofi, tcp, verbs};

/// Environment variable with the daemon's address.
pub const ADDRESS_VAR: &str = "TRANSHIP_ADDRESS";
/// Environment variable with the secret of the fabrics between hosts.
pub const SECRET_VAR: &str = "TRANSHIP_TOKEN";
/// Environment variable with the libfabric provider, that of the daemon; the best unless it is set.
const PROVIDER_VAR: &str = "TRANSHIP_OFI_PROVIDER";
/// Environment variable with the provider's only domain to use; all unless it is set.
const DOMAIN_VAR: &str = "TRANSHIP_OFI_DOMAIN";
/// Environment variable with the RDMA devices to use, with commas in between; all unless it is set.
const DEVICES_VAR: &str = "TRANSHIP_VERBS_DEVICES";

/// Environment variable with the place of the GID to use in each port's table; chosen unless it is set.
const GID_VAR: &str = "TRANSHIP_VERBS_GID_INDEX";
/// Environment variable with the traffic class of packets, 0 to 255; 0 unless it is set.
const CLASS_VAR: &str = "TRANSHIP_VERBS_TRAFFIC_CLASS";

/// A daemon, and as whom to speak to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Dial {
    /// As `unix:///PATH`, `tcp://HOST:PORT`, `verbs://HOST:PORT` or `ofi://HOST:PORT`; none for [`ADDRESS_VAR`], else the socket that
    /// `tranship serve` listens at unless told otherwise.
    pub address: Option<String>,
    /// Whose blocks.
    pub tenant: String,
    /// The tenant's token; empty for none.
    pub tenant_token: String,
    /// The secret of the fabrics between hosts; none for [`SECRET_VAR`], if that is set.
    pub secret: Option<String>,
    /// What the client calls itself; none for its process.
    pub name: Option<String>,
    /// How long a call may take.
    pub timeout: Duration,
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            address: None,
            tenant: Identity::TENANT_DEFAULT.into(),
            tenant_token: String::new(),
            secret: None,
            name: None,
            timeout: Duration::from_secs(5),
        }
    }
}

/// No connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A variable of the environment is no such number.
    #[error("{name}={text}: expected a number from 0 to 255")]
    Number {
        /// The variable.
        name: &'static str,
        /// What it is.
        text: String,
    },
    /// The daemon cannot be reached, or refuses.
    #[error(transparent)]
    Client(#[from] Error),
}

impl Dial {
    /// Connects.
    ///
    /// # Errors
    /// When the address cannot be read, nobody answers there, or the daemon refuses.
    pub fn connect(&self) -> Result<Client, DialError> {
        let address = match self.address.clone().or_else(|| variable(ADDRESS_VAR)) {
            Some(text) => text.parse()?,
            None => Address::in_runtime_dir("tranship.sock"),
        };
        let mut builder =
            Client::builder().tenant(&self.tenant, &self.tenant_token).timeout(self.timeout);
        if let Some(name) = &self.name {
            builder = builder.name(name);
        }
        let secret = self.secret.clone().or_else(|| variable(SECRET_VAR));
        let control = secret.iter().fold(tcp::Config::new().dial_only(), tcp::Config::token);
        builder = match address {
            Address::Unix(_) => builder,
            Address::Tcp { .. } => builder.fabric(control),
            Address::Verbs { .. } => {
                let fabric = verbs::Config::new().control(control);
                let fabric = devices().into_iter().fold(fabric, verbs::Config::device);
                let fabric = number(GID_VAR)?.into_iter().fold(fabric, verbs::Config::gid_index);
                let class = number(CLASS_VAR)?.into_iter();
                builder.fabric(class.fold(fabric, verbs::Config::traffic_class))
            }
            Address::Ofi { .. } => {
                let fabric = ofi::Config::new().control(control);
                let fabric = variable(PROVIDER_VAR).into_iter().fold(fabric, ofi::Config::provider);
                builder.fabric(variable(DOMAIN_VAR).into_iter().fold(fabric, ofi::Config::domain))
            }
        };
        Ok(builder.connect(&address.endpoint())?)
    }
}

/// The RDMA devices that were named.
fn devices() -> Vec<String> {
    let list = variable(DEVICES_VAR).unwrap_or_default();
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// A variable that is a number, if it is set.
fn number(name: &'static str) -> Result<Option<u8>, DialError> {
    let read = |text: String| text.trim().parse().map_err(|_| DialError::Number { name, text });
    variable(name).map(read).transpose()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
