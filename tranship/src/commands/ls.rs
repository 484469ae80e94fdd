//! `tranship ls`

use std::time::Duration;

use serde_json::json;
use tranship_cache::Identity;
use tranship_cache::client::Listed;
use tranship_cache::key::KEY_BYTES;
use tranship_cache::tier::{Tier, Tiers};

use super::{AdminTarget, Context, Error};
use crate::exit::Exit;
use crate::output::Table;
use crate::serve::admin::pb;
use crate::units::human;

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only keys that start with these hex digits
    #[arg(default_value = "")]
    pub prefix: String,
    /// What is in this tier; all shows a block once for each tier that has it
    #[arg(long, value_enum, default_value_t)]
    pub tier: Where,
    /// Print at most so many blocks; 0 is all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u64,
    /// Whose blocks
    #[arg(long, value_name = "NAME", default_value = Identity::TENANT_DEFAULT)]
    pub tenant: String,
    /// Which daemon.
    #[command(flatten)]
    pub target: AdminTarget,
}

/// Which tiers to look in.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum Where {
    /// Memory
    #[default]
    Dram,
    /// The log on a local device
    Nvme,
    /// Objects in a bucket
    Object,
    /// Everywhere
    All,
}

impl Where {
    fn tiers(self) -> Tiers {
        match self {
            Self::Dram => Tiers::only(Tier::Dram),
            Self::Nvme => Tiers::only(Tier::Nvme),
            Self::Object => Tiers::only(Tier::Object),
            Self::All => Tiers::ALL,
        }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        if let Some(client) = self.target.client(context, &self.tenant)? {
            check(&self.prefix)?;
            let max = if self.limit == 0 { u64::MAX } else { self.limit };
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let found = client.list_in(self.tier.tiers(), &self.prefix, max)?;
            let mut table = headings();
            for found in &found {
                print(context, &block(found), &mut table)?;
            }
            return show(context, &table);
        }
        let mut client = self.target.connect(context)?;
        let mut left = if self.limit == 0 { u64::MAX } else { self.limit };
        let mut request = pb::ListRequest {
            tenant: self.tenant.clone(),
            key_prefix: self.prefix.clone(),
            tiers: names(self.tier.tiers()),
            ..Default::default()
        };
        let mut table = headings();
        loop {
            request.page_size = u32::try_from(left.min(PAGE_BLOCKS)).unwrap_or(u32::MAX);
            let page =
                client.call(request.clone(), async |admin, request| admin.list(request).await)?;
            left = left.saturating_sub(page.blocks.len() as u64);
            for block in &page.blocks {
                print(context, block, &mut table)?;
            }
            if page.next_page_token.is_empty() || left == 0 {
                break;
            }
            request.page_token = page.next_page_token;
        }
        show(context, &table)
    }
}

/// Tiers in the words of administration.
pub(super) fn names(tiers: Tiers) -> Vec<String> {
    let named = Tier::ALL.into_iter().filter(|tier| tiers.contains(*tier));
    named.map(|tier| tier.to_string()).collect()
}

fn headings() -> Table {
    let headings = ["key", "identity", "tier", "size", "position", "age", "hits", "held"];
    Table::new(headings).right(3).right(4).right(5).right(6)
}

/// Prints a block now, or puts it into the table.
fn print(context: &Context, block: &pb::Block, table: &mut Table) -> Result<(), Error> {
    if context.output.is_json() {
        return Ok(context.output.object("block", &object(block))?);
    }
    table.row(row(block));
    Ok(())
}

fn show(context: &Context, table: &Table) -> Result<Exit, Error> {
    if !context.output.is_json() {
        context.output.table(table)?;
    }
    Ok(Exit::Done)
}

/// What administration says of a prefix that cannot be one.
fn check(prefix: &str) -> Result<(), Error> {
    let digits = 2 * KEY_BYTES;
    if prefix.len() <= digits && prefix.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Error::Usage(format!("{prefix:?}: a prefix is up to {digits} hex digits")))
}

/// A block as a client learns of it, in the form of administration.
pub(super) fn block(found: &Listed) -> pb::Block {
    pb::Block {
        identity: found.identity.to_string(),
        key: found.key.to_string(),
        bytes: found.len,
        position: found.position,
        parent: found.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        leases: found.leases,
        pinned: found.pinned,
        age_ms: found.age_ms,
        expires_in_ms: found.expires_in_ms,
        hits: found.hits,
        checksum: found.checksum,
        tier: found.tier.to_string(),
    }
}

/// Blocks of one page.
const PAGE_BLOCKS: u64 = 10_000;

/// A block for programs.
pub(super) fn object(block: &pb::Block) -> serde_json::Value {
    json!({
        "key": block.key,
        "identity": block.identity,
        "tier": block.tier,
        "bytes": block.bytes,
        "position": block.position,
        "parent": Some(&block.parent).filter(|parent| !parent.is_empty()),
        "leases": block.leases,
        "pinned": block.pinned,
        "age_ms": block.age_ms,
        "expires_in_ms": block.expires_in_ms,
        "hits": block.hits,
        "checksum": format!("{:016x}", block.checksum),
    })
}

fn row(block: &pb::Block) -> [String; 8] {
    let held = match (block.pinned, block.leases) {
        (false, 0) => String::new(),
        (true, 0) => "pinned".to_owned(),
        (false, leases) => format!("{leases} leases"),
        (true, leases) => format!("pinned, {leases} leases"),
    };
    [
        block.key.clone(),
        block.identity.get(..8).unwrap_or(&block.identity).to_owned(),
        block.tier.clone(),
        human::size(block.bytes),
        block.position.map(|position| human::count(position.into())).unwrap_or_default(),
        block.age_ms.map(|age| human::time(Duration::from_millis(age))).unwrap_or_default(),
        human::count(block.hits),
        held,
    ]
}
