//! Which daemon to talk to, and as whom.

use std::path::{Path, PathBuf};

use tranship_cache::client::{Cache, Client};
use tranship_cache::identity::Geometry;
use tranship_cache::{Chain, Identity, Link};

use super::{Context, Error};
use crate::config::{self, Address, Addresses, Config};
use crate::net::Dial;
use crate::serve::admin;
use crate::units::Span;

/// Options of every command that reads or writes blocks.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Addresses of the daemon, separated by commas; the first that answers is used [default:
    /// serve.listen of the configuration; bench starts a daemon of its own]
    #[arg(long = "connect", visible_alias = "to", value_name = "ADDRESSES")]
    pub to: Option<Addresses>,
    /// File with the secret of the fabrics between hosts [default: tcp.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub timeout: Span,
    /// Tenant to act for; its token is taken from the configuration
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    pub tenant: String,
}

/// Options of every command that looks after a daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminTarget {
    /// Address of the daemon's administration [default: serve.admin of the configuration]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Address>,
    /// Ask as a client of the tenant, at the first of these addresses that answers, and not
    /// administration; reaches other hosts
    #[arg(long, visible_alias = "to", value_name = "ADDRESSES", conflicts_with = "admin")]
    pub connect: Option<Addresses>,
    /// File with the secret of the fabrics between hosts [default: tcp.token_file of the configuration]
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub token_file: Option<PathBuf>,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub timeout: Span,
}

/// Whose blocks: only equal identities share any.
#[derive(Debug, Clone, clap::Args)]
pub struct Namespace {
    /// Model the blocks belong to; blocks of other models are never seen
    #[arg(long, value_name = "NAME", default_value = "blob")]
    pub model: String,
    /// Text that keeps equal keys apart
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub salt: String,
}

impl Target {
    /// The blocks of a namespace, at the daemon.
    pub(super) fn open(&self, context: &Context, namespace: &Namespace) -> Result<Cache, Error> {
        let config = context.config_with(None)?.config;
        let token = token(&config, &self.tenant);
        let client =
            dial(config, self.to.as_ref(), self.token_file.as_deref())?.connect(|client| {
                client
                    .name(format!("tranship cli, pid {}", std::process::id()))
                    .tenant(self.tenant.as_str(), token.as_str())
                    .timeout(self.timeout.duration())
            })?;
        Ok(client.cache(namespace.identity(&self.tenant)))
    }
}

impl AdminTarget {
    /// A client of the tenant, if that was asked for.
    pub(super) fn client(&self, context: &Context, tenant: &str) -> Result<Option<Client>, Error> {
        let Some(to) = &self.connect else { return Ok(None) };
        let config = context.config_with(None)?.config;
        let token = token(&config, tenant);
        let client = dial(config, Some(to), self.token_file.as_deref())?.connect(|client| {
            client
                .name(format!("tranship cli, pid {}", std::process::id()))
                .tenant(tenant, token.as_str())
                .timeout(self.timeout.duration())
        })?;
        Ok(Some(client))
    }

    pub(super) fn connect(&self, context: &Context) -> Result<admin::Client, Error> {
        let config = context.config_with(None)?.config;
        match self.admin.as_ref().unwrap_or(&config.serve.admin) {
            Address::Unix(path) => Ok(admin::connect(path, self.timeout.duration())?),
            other => Err(Error::NotUnix(other.clone())),
        }
    }
}

impl Namespace {
    /// What blocks of unknown structure are: bytes.
    pub(super) fn identity(&self, tenant: &str) -> Identity {
        let mut identity = Identity::new(&*self.model, "", "u8", Geometry::default(), 1);
        identity.layout = "blob".to_owned();
        identity.salt.clone_from(&self.salt);
        identity.tenant = tenant.to_owned();
        identity
    }
}

/// The block that a person names: by 32 hex digits, or by any text.
pub(super) fn link(identity: &Identity, name: &str) -> Link {
    match name.parse() {
        Ok(key) => Link { key, parent: None, position: 0 },
        Err(_) => Chain::new(identity).push(name.as_bytes()),
    }
}

/// The token of a tenant, as configured; empty for none.
pub(in crate::commands) fn token(config: &Config, tenant: &str) -> String {
    let configured = config.tenants.iter().find(|known| known.name == tenant);
    let token = configured.and_then(|tenant| tenant.token.as_ref());
    token.map_or_else(String::new, |token| token.reveal().to_owned())
}

/// The way to the daemon at `to`, or at the addresses of the configuration.
pub(in crate::commands) fn dial(
    config: Config,
    to: Option<&Addresses>,
    token_file: Option<&Path>,
) -> Result<Dial, Error> {
    let to = to.unwrap_or(&config.serve.listen).clone();
    Ok(Dial { to, secret: config::token(token_file, &config.tcp)?, config })
}
