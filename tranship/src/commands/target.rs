//! Which daemon to talk to, and as whom.

use crate::config::Address;
use crate::units::Span;

/// Options of every command that talks to a daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Address of the daemon [default: serve.listen of the configuration]
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<Address>,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub timeout: Span,
    /// Tenant to act for
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
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
