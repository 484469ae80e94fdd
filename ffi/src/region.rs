//! Memory registered for transfer.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tranship_transport::memory::MemoryError;
use tranship_transport::{HostMemory, Memory, Slice};

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input::{self, option_structs};
use crate::output::{self, Out};
use crate::status::{Failure, Result, tranship_status_t};

/// Memory registered with every fabric of an engine.
pub struct tranship_region_t {
    _opaque: [u8; 0],
}

/// Wish for 2 MiB pages; never fails for want of them.
pub const TRANSHIP_ALLOC_HUGE: u32 = 1;
/// Fill in all pages now.
pub const TRANSHIP_ALLOC_PREFAULT: u32 = 2;
/// Lock the pages into memory.
pub const TRANSHIP_ALLOC_LOCK: u32 = 4;
/// Allow more bytes than there is memory, for memory of which only parts are touched.
pub const TRANSHIP_ALLOC_SPARSE: u32 = 8;
/// Place the pages on `numa_node`.
pub const TRANSHIP_ALLOC_NUMA: u32 = 16;

/// How memory is allocated. 0 and NULL are "as usual".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_alloc_options_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// Names the memory in errors and in /proc/PID/maps.
    pub name: *const c_char,
    /// TRANSHIP_ALLOC_*, or-ed.
    pub flags: u32,
    /// With TRANSHIP_ALLOC_NUMA.
    pub numa_node: u32,
}

/// Memory of this host.
pub const TRANSHIP_MEMORY_HOST: u32 = 0;
/// Memory of a CUDA device.
pub const TRANSHIP_MEMORY_CUDA: u32 = 1;
/// Memory of a ROCm device.
pub const TRANSHIP_MEMORY_ROCM: u32 = 2;

/// What is registered. 0 is "as usual".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_register_options_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// TRANSHIP_MEMORY_*. This release registers memory of the host; any other kind is
    /// TRANSHIP_UNSUPPORTED.
    pub kind: u32,
    /// Which device, for memory of one.
    pub device: u32,
}

option_structs! {
    tranship_alloc_options_t: 24;
    tranship_register_options_t: 16;
}

/// What the handle stands for; nothing while it is being closed.
pub struct Region {
    region: Mutex<Option<tranship_transport::Region>>,
}

impl Region {
    fn of(region: tranship_transport::Region) -> Self {
        Self { region: Mutex::new(Some(region)) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<tranship_transport::Region>> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&tranship_transport::Region) -> Result<T>,
    ) -> Result<T> {
        work(self.lock().as_ref().ok_or_else(|| handle::closed("a region"))?)
    }

    /// `len` bytes at `offset`.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> Result<Slice> {
        self.with(|region| Ok(region.slice(offset..offset.saturating_add(len))?))
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Result<Slice> {
        self.with(|region| Ok(region.slice(0..region.len())?))
    }

    pub(crate) fn memory(&self) -> Result<Arc<Memory>> {
        self.with(|region| Ok(Arc::clone(region.memory())))
    }
}

/// Allocates `len` bytes that peers of this host can map, and registers them. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_region_alloc(
    engine: *mut tranship_engine_t,
    len: usize,
    options: *const tranship_alloc_options_t,
    region: *mut *mut tranship_region_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(region, "region")?;
        let engine = handle::get::<Engine>(engine)?;
        let options = input::options(options)?;
        let mut memory = HostMemory::new(len);
        if let Some(name) = input::text(options.name, "name")? {
            memory = memory.name(name);
        }
        let known = TRANSHIP_ALLOC_HUGE
            | TRANSHIP_ALLOC_PREFAULT
            | TRANSHIP_ALLOC_LOCK
            | TRANSHIP_ALLOC_SPARSE
            | TRANSHIP_ALLOC_NUMA;
        if options.flags & !known != 0 {
            return Err(Failure::invalid(format!(
                "flags {:#x}: use TRANSHIP_ALLOC_*",
                options.flags
            )));
        }
        let has = |flag| options.flags & flag != 0;
        if has(TRANSHIP_ALLOC_HUGE) {
            memory = memory.huge_pages();
        }
        if has(TRANSHIP_ALLOC_PREFAULT) {
            memory = memory.prefault();
        }
        if has(TRANSHIP_ALLOC_LOCK) {
            memory = memory.lock();
        }
        if has(TRANSHIP_ALLOC_SPARSE) {
            memory = memory.sparse();
        }
        if has(TRANSHIP_ALLOC_NUMA) {
            memory = memory.numa_node(options.numa_node);
        }
        out.set(handle::open(Region::of(engine.engine.alloc(memory)?))?);
        Ok(())
    })
}

/// Registers memory of the caller's, which must stay valid until the region was closed with success. Over
/// shm peers cannot reach such memory, but it can be the near side of any transfer; over tcp they can.
/// `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_region_register(
    engine: *mut tranship_engine_t,
    data: *mut c_void,
    len: usize,
    options: *const tranship_register_options_t,
    region: *mut *mut tranship_region_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(region, "region")?;
        let engine = handle::get::<Engine>(engine)?;
        let kind = match input::options(options)?.kind {
            TRANSHIP_MEMORY_HOST => None,
            TRANSHIP_MEMORY_CUDA => Some("CUDA"),
            TRANSHIP_MEMORY_ROCM => Some("ROCm"),
            other => {
                return Err(Failure::invalid(format!("kind {other}: use TRANSHIP_MEMORY_*")));
            }
        };
        if let Some(kind) = kind {
            let text = format!(
                "memory of a {kind} device: this release of libtranship moves memory of the host; copy \
                 to pinned host memory and register that"
            );
            return Err(Failure::new(tranship_status_t::TRANSHIP_UNSUPPORTED, text));
        }
        input::check_bytes(data.cast(), len, "data")?;
        let data = if data.is_null() { std::ptr::dangling_mut() } else { data.cast() };
        let memory = Memory::foreign(data, len, Box::new(()));
        out.set(handle::open(Region::of(engine.engine.register(memory)?))?);
        Ok(())
    })
}

/// Where its bytes are, until the region is closed, and how many. Either may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_region_data(
    region: *mut tranship_region_t,
    data: *mut *mut c_void,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let memory = handle::get::<Region>(region)?.memory()?;
        if !data.is_null() {
            let data = Out::new(data, "data")?;
            if !memory.is_host() {
                return Err(Failure::invalid(MemoryError::OnDevice.to_string()));
            }
            data.set(memory.as_ptr().cast());
        }
        if !len.is_null() {
            Out::new(len, "len")?.set(memory.len());
        }
        Ok(())
    })
}

/// What its pages are, and why they are less than what was wished for: one line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_region_backing(
    region: *mut tranship_region_t,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let memory = handle::get::<Region>(region)?.memory()?;
        output::text(&memory.backing().to_string(), buffer, capacity, len)
    })
}

/// Takes the region out of use: refuses new transfers, ends those in flight, revokes its windows, and
/// returns once no transfer can touch its memory, which is unmapped or the caller's again.
/// TRANSHIP_NOT_FENCED: not proven within `timeout_us`; the handle stays open, close it again.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_region_close(
    region: *mut tranship_region_t,
    timeout_us: u64,
) -> tranship_status_t {
    call(|| {
        let timeout = input::wait(timeout_us)?;
        let object = handle::get::<Region>(region)?;
        let closing = object.lock().take().ok_or_else(|| handle::closed("a region"))?;
        if let Err(error) = closing.close(timeout) {
            let text = error.to_string();
            *object.lock() = Some(error.region);
            return Err(Failure::new(tranship_status_t::TRANSHIP_NOT_FENCED, text));
        }
        handle::close::<Region>(region)?;
        Ok(())
    })
}
