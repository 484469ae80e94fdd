//! The connection to a daemon, as adapters of other languages describe it.

use std::time::Duration;

use tranship_cache::client::daemon::{Address, AddressError};
use tranship_cache::client::{Client, Error};
use tranship_cache::identity::Identity;
use tranship_transport::fabric::tcp;

/// Environment variable with the daemon's address.
pub const ADDRESS_VAR: &str = "TRANSHIP_ADDRESS";
/// Environment variable with the secret of the tcp fabric.
pub const SECRET_VAR: &str = "TRANSHIP_TOKEN";

/// A daemon, and as whom to speak to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Dial {
    /// As `unix:///PATH` or `tcp://HOST:PORT`; none for [`ADDRESS_VAR`], else the socket that
    /// `tranship serve` listens at unless told otherwise.
    pub address: Option<String>,
    /// Whose blocks.
    pub tenant: String,
    /// The tenant's token; empty for none.
    pub tenant_token: String,
    /// The secret of the tcp fabric; none for [`SECRET_VAR`], if that is set.
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
        if let Address::Tcp { .. } = address {
            let mut fabric = tcp::Config::new().dial_only();
            if let Some(secret) = self.secret.clone().or_else(|| variable(SECRET_VAR)) {
                fabric = fabric.token(secret);
            }
            builder = builder.fabric(fabric);
        }
        Ok(builder.connect(&address.endpoint())?)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
