//! What makes two KV caches interchangeable.

use std::ffi::c_char;

use tranship_cache::Identity;
use tranship_cache::identity::Geometry;

use crate::call::call;
use crate::input::{self, option_structs};
use crate::output::{self, Out};
use crate::status::{Failure, Result, tranship_status_t};

/// Everything that must agree before the bytes of one KV cache may stand in for those of another. The tenant
/// is that of the client. 0 is 1 for what counts things, and 0 for a rank.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_identity_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// Model name. Must be given.
    pub model: *const c_char,
    /// Revision of the weights, as exact as the engine knows it.
    pub revision: *const c_char,
    /// Element type of the KV ("bf16", "fp8_e4m3", ...). Must be given.
    pub dtype: *const c_char,
    /// Order of the dimensions inside a block; as usual "nhd".
    pub layout: *const c_char,
    /// Secret or label that keeps caches apart on purpose.
    pub salt: *const c_char,
    /// Layers held by this shard.
    pub layers: u32,
    /// KV heads held by this shard.
    pub kv_heads: u32,
    /// Elements of one head of one token.
    pub head_dim: u32,
    /// Tensor-parallel shards.
    pub tp_size: u32,
    /// Which one this is, from 0.
    pub tp_rank: u32,
    /// Pipeline stages.
    pub pp_size: u32,
    /// Which one this is, from 0.
    pub pp_rank: u32,
    /// Tokens in a full block.
    pub block_tokens: u32,
}

option_structs! {
    tranship_identity_t: 80;
}

/// # Safety
/// As for [`input::options`], and for the texts in it as for [`input::text`].
pub(crate) unsafe fn read(identity: *const tranship_identity_t) -> Result<Identity> {
    if identity.is_null() {
        return Err(Failure::invalid("identity is NULL; a cache is of one"));
    }
    // SAFETY: as the caller says.
    let (it, model, revision, dtype, layout, salt) = unsafe {
        let it = input::options(identity)?;
        (
            it,
            input::text(it.model, "model")?,
            input::text(it.revision, "revision")?,
            input::text(it.dtype, "dtype")?,
            input::text(it.layout, "layout")?,
            input::text(it.salt, "salt")?,
        )
    };
    let geometry = Geometry {
        layers: it.layers.max(1),
        kv_heads: it.kv_heads.max(1),
        head_dim: it.head_dim.max(1),
        tp_size: it.tp_size.max(1),
        tp_rank: it.tp_rank,
        pp_size: it.pp_size.max(1),
        pp_rank: it.pp_rank,
    };
    let [model, revision, dtype, salt] = [model, revision, dtype, salt].map(|it| it.unwrap_or(""));
    let mut identity = Identity::new(model, revision, dtype, geometry, it.block_tokens.max(1));
    if let Some(layout) = layout {
        identity.layout = layout.into();
    }
    identity.salt = salt.into();
    identity.encode()?;
    Ok(identity)
}

/// Says in which fields two identities differ: an empty text when they agree.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_identity_explain(
    ours: *const tranship_identity_t,
    theirs: *const tranship_identity_t,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let told = read(ours)?.explain_mismatch(&read(theirs)?);
        output::text(&told, buffer, capacity, len)
    })
}

/// The 16 bytes that name an identity in events, for a client of tenant `tenant` (NULL for "default").
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_identity_id(
    identity: *const tranship_identity_t,
    tenant: *const c_char,
    id: *mut [u8; 16],
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let id = Out::new(id, "id")?;
        let mut identity = read(identity)?;
        if let Some(tenant) = input::text(tenant, "tenant")? {
            identity.tenant = tenant.into();
        }
        id.set(*identity.id().as_bytes());
        Ok(())
    })
}
