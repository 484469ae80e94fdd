//! The names of blocks.

use tranship_cache::lineage::Hashed;
use tranship_cache::{Chain, Key, Link};

use crate::cache::{Cache, tranship_cache_t};
use crate::call::call;
use crate::handle;
use crate::input;
use crate::output::{Out, OutList};
use crate::status::{Failure, Result, tranship_status_t};

/// Names a block by its content: what its tokens, and all the tokens before it, are.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct tranship_key_t {
    /// A good hash: nothing else tells two blocks apart.
    pub bytes: [u8; 16],
}

/// The link has a parent.
pub const TRANSHIP_LINK_PARENT: u32 = 1;

/// A key with its place in the chain of prefixes. {.key = key} alone stands alone.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct tranship_link_t {
    /// The block itself.
    pub key: tranship_key_t,
    /// The block right before it, with TRANSHIP_LINK_PARENT.
    pub parent: tranship_key_t,
    /// Blocks before this one in its sequence.
    pub position: u32,
    /// TRANSHIP_LINK_*, or-ed.
    pub flags: u32,
}

impl From<Key> for tranship_key_t {
    fn from(key: Key) -> Self {
        Self { bytes: *key.as_bytes() }
    }
}

impl From<tranship_key_t> for Key {
    fn from(key: tranship_key_t) -> Self {
        Self::from_bytes(key.bytes)
    }
}

impl From<Link> for tranship_link_t {
    fn from(link: Link) -> Self {
        Self {
            key: link.key.into(),
            parent: link.parent.map(Into::into).unwrap_or_default(),
            position: link.position,
            flags: if link.parent.is_some() { TRANSHIP_LINK_PARENT } else { 0 },
        }
    }
}

impl tranship_link_t {
    pub(crate) fn link(&self) -> Result<Link> {
        let parent = match self.flags {
            0 => None,
            TRANSHIP_LINK_PARENT => Some(self.parent.into()),
            other => {
                return Err(Failure::invalid(format!("flags {other:#x}: use TRANSHIP_LINK_*")));
            }
        };
        Ok(Link { key: self.key.into(), parent, position: self.position })
    }
}

/// # Safety
/// As for [`input::list`].
pub(crate) unsafe fn keys<'a>(keys: *const tranship_key_t, count: usize) -> Result<&'a [Key]> {
    // Both are 16 bytes and nothing else.
    const { assert!(size_of::<Key>() == 16 && align_of::<Key>() == align_of::<tranship_key_t>()) };
    // SAFETY: as the caller says.
    unsafe { input::list(keys.cast::<Key>(), count, "keys") }
}

/// # Safety
/// As for [`input::list`].
pub(crate) unsafe fn links(links: *const tranship_link_t, count: usize) -> Result<Vec<Link>> {
    // SAFETY: as the caller says.
    let links = unsafe { input::list(links, count, "links") }?;
    links.iter().map(tranship_link_t::link).collect()
}

/// # Safety
/// As for [`Out::new`], but NULL is none.
unsafe fn after(after: *const tranship_link_t) -> Result<Option<Link>> {
    // SAFETY: as the caller says.
    let after = unsafe { input::list(after, usize::from(!after.is_null()), "after") }?;
    after.first().map(tranship_link_t::link).transpose()
}

/// The links of the full blocks of a sequence of tokens, under the identity of a cache, which says how many
/// tokens a block has. It goes on after the block `after`, which may be NULL. `blocks`, which may be NULL, is how
/// many full blocks there are; TRANSHIP_TOO_SMALL when that is more than `max`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_links_of_tokens(
    cache: *mut tranship_cache_t,
    tokens: *const u32,
    count: usize,
    after_link: *const tranship_link_t,
    links: *mut tranship_link_t,
    max: usize,
    blocks: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let tokens = input::list(tokens, count, "tokens")?;
        let cache = handle::get::<Cache>(cache)?;
        let identity = cache.cache.identity();
        let full = tokens.chunks_exact(identity.block_tokens as usize);
        if !blocks.is_null() {
            Out::new(blocks, "blocks")?.set(full.len());
        }
        if full.len() > max {
            let text = format!("{} blocks do not fit into a list of {max}", full.len());
            return Err(Failure::new(tranship_status_t::TRANSHIP_TOO_SMALL, text));
        }
        let out = OutList::new(links, max, "links")?;
        let mut chain = Chain::new(identity);
        if let Some(last) = after(after_link)? {
            chain = chain.after(last);
        }
        out.fill(full.map(|block| chain.push_tokens(block).into()));
        Ok(())
    })
}

/// The links of blocks that an engine has hashed itself, each hash, of `hash_bytes` bytes, over all blocks
/// before it. `context` holds what the hash leaves out, such as its algorithm. It goes on after the block
/// `after`, which may be NULL. There are `count` hashes, and as many links.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_links_of_hashes(
    context: *const u8,
    context_len: usize,
    hashes: *const u8,
    hash_bytes: usize,
    count: usize,
    after_link: *const tranship_link_t,
    links: *mut tranship_link_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = OutList::new(links, count, "links")?;
        let context = input::bytes(context, context_len, "context")?;
        let all = hash_bytes.checked_mul(count).filter(|_| hash_bytes > 0);
        let all = all.ok_or_else(|| {
            Failure::invalid(format!("hashes of {hash_bytes} bytes; one to what can be addressed"))
        })?;
        let hashes = input::bytes(hashes, all, "hashes")?;
        let mut chain = Hashed::new(context);
        if let Some(last) = after(after_link)? {
            chain = chain.at(last.position.saturating_add(1), Some(last.key));
        }
        out.fill(hashes.chunks_exact(hash_bytes).map(|hash| chain.push(hash).into()));
        Ok(())
    })
}

/// The key of a name of any length, for blocks that are in no chain. `context` keeps names of different uses
/// apart; it may be empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_key_of_name(
    context: *const u8,
    context_len: usize,
    name: *const u8,
    len: usize,
    key: *mut tranship_key_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let key = Out::new(key, "key")?;
        let context = input::bytes(context, context_len, "context")?;
        key.set(Hashed::new(context).push(input::bytes(name, len, "name")?).key.into());
        Ok(())
    })
}
