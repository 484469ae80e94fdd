//! `tranship ls`

use std::time::Duration;

use serde_json::json;
use tranship_cache::Identity;

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

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Error> {
        let mut client = self.target.connect(context)?;
        let mut left = if self.limit == 0 { u64::MAX } else { self.limit };
        let mut request = pb::ListRequest {
            tenant: self.tenant.clone(),
            key_prefix: self.prefix.clone(),
            ..Default::default()
        };
        let mut table = Table::new(["key", "identity", "size", "position", "age", "hits", "held"])
            .right(2)
            .right(3)
            .right(4)
            .right(5);
        loop {
            request.page_size = u32::try_from(left.min(PAGE_BLOCKS)).unwrap_or(u32::MAX);
            let page =
                client.call(request.clone(), async |admin, request| admin.list(request).await)?;
            left = left.saturating_sub(page.blocks.len() as u64);
            for block in &page.blocks {
                if context.output.is_json() {
                    context.output.object("block", &object(block))?;
                } else {
                    table.row(row(block));
                }
            }
            if page.next_page_token.is_empty() || left == 0 {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if !context.output.is_json() {
            context.output.table(&table)?;
        }
        Ok(Exit::Done)
    }
}

/// Blocks of one page.
const PAGE_BLOCKS: u64 = 10_000;

/// A block for programs.
pub(super) fn object(block: &pb::Block) -> serde_json::Value {
    json!({
        "key": block.key,
        "identity": block.identity,
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

fn row(block: &pb::Block) -> [String; 7] {
    let held = match (block.pinned, block.leases) {
        (false, 0) => String::new(),
        (true, 0) => "pinned".to_owned(),
        (false, leases) => format!("{leases} leases"),
        (true, leases) => format!("pinned, {leases} leases"),
    };
    [
        block.key.clone(),
        block.identity.get(..8).unwrap_or(&block.identity).to_owned(),
        human::size(block.bytes),
        human::count(block.position.into()),
        human::time(Duration::from_millis(block.age_ms)),
        human::count(block.hits),
        held,
    ]
}
