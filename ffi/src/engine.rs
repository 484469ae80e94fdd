//! Engines.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tranship_transport::fabric::{shm, tcp};
use tranship_transport::{Builder, Drive, Incoming, Polling, Stats};

use crate::call::call;
use crate::handle;
use crate::input::{self, option_structs};
use crate::output::{self, Out};
use crate::status::{Failure, Result, tranship_status_t};

/// Moves bytes between memories of this process and of its peers. All calls may be made from any
/// thread.
pub struct tranship_engine_t {
    _opaque: [u8; 0],
}

/// Wait by spinning for a while, then sleep.
pub const TRANSHIP_POLLING_ADAPTIVE: u32 = 0;
/// Never sleep: the lowest latency, for a whole core.
pub const TRANSHIP_POLLING_BUSY: u32 = 1;

/// A thread of the engine's moves on what nobody waits for.
pub const TRANSHIP_DRIVE_THREAD: u32 = 0;
/// Only calls that wait, and tranship_engine_progress(), move anything on.
pub const TRANSHIP_DRIVE_CALLER: u32 = 1;

/// How an engine is built. 0 and NULL are "as usual".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_engine_options_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// "shm", "tcp" or "shm,tcp": the best first; "shm" as usual.
    pub fabrics: *const c_char,
    /// The socket file that shm listens at; as usual an abstract name of its own.
    pub shm_path: *const c_char,
    /// HOST:PORT that tcp listens at, port 0 for any; as usual "127.0.0.1:0".
    pub tcp_listen: *const c_char,
    /// HOST:PORT that peers are told to dial; needed when tcp listens on all addresses.
    pub tcp_advertise: *const c_char,
    /// The secret that both sides of a tcp connection prove to know; as usual none.
    pub tcp_secret: *const c_char,
    /// The time that transfers have when they name none; as usual 5 s.
    pub deadline_us: u64,
    /// How often watched words are looked at; as usual every 50 µs.
    pub watch_every_us: u64,
    /// How many counters there can be, at most 65535; as usual 4096.
    pub counters: u32,
    /// TRANSHIP_POLLING_*.
    pub polling: u32,
    /// TRANSHIP_DRIVE_*.
    pub drive: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// What an engine has counted since it was opened. Whenever no transfer is under way, `submitted` is the
/// sum of `done`, `rejected`, `fenced` and `lost`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_engine_stats_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// Transfers taken on.
    pub submitted: u64,
    /// Transfers that ended well.
    pub done: u64,
    /// Transfers of which no byte moved.
    pub rejected: u64,
    /// Transfers that were stopped.
    pub fenced: u64,
    /// Transfers that ended without proof.
    pub lost: u64,
    /// Of the lost, those since proven ended.
    pub recovered: u64,
    /// Bytes of writes that ended well.
    pub written_bytes: u64,
    /// Bytes of reads that ended well.
    pub read_bytes: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Immediates that counted for someone.
    pub immediates: u64,
    /// Immediates for a slot that nobody owns any more.
    pub stray_immediates: u64,
    /// Transfers that had to wait for a connection or for room.
    pub parked: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Connections that went down.
    pub disconnections: u64,
    /// Windows fenced.
    pub windows_fenced: u64,
    /// Windows reached over a slower fabric because the faster one did not lead there.
    pub fallbacks: u64,
}

option_structs! {
    tranship_engine_options_t: 80;
    tranship_engine_stats_t: 144;
}

/// What the handle stands for.
pub struct Engine {
    pub(crate) engine: tranship_transport::Engine,
    /// What came in and did not fit into the caller's buffer.
    pub(crate) held: Mutex<VecDeque<Incoming>>,
}

impl Engine {
    pub(crate) fn held(&self) -> MutexGuard<'_, VecDeque<Incoming>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn polling(polling: u32) -> Result<Polling> {
    match polling {
        TRANSHIP_POLLING_ADAPTIVE => Ok(Polling::default()),
        TRANSHIP_POLLING_BUSY => Ok(Polling::Busy),
        other => Err(Failure::invalid(format!("polling {other}: use TRANSHIP_POLLING_*"))),
    }
}

fn drive(drive: u32) -> Result<Drive> {
    match drive {
        TRANSHIP_DRIVE_THREAD => Ok(Drive::Thread),
        TRANSHIP_DRIVE_CALLER => Ok(Drive::Caller),
        other => Err(Failure::invalid(format!("drive {other}: use TRANSHIP_DRIVE_*"))),
    }
}

/// # Safety
/// The texts of the options are NULL or end with a NUL.
unsafe fn builder(options: &tranship_engine_options_t) -> Result<Builder> {
    if options.reserved != 0 {
        return Err(Failure::invalid("reserved is not 0; begin with TRANSHIP_INIT"));
    }
    // SAFETY: as the caller says, all five.
    let (fabrics, path, listen, advertise, secret) = unsafe {
        (
            input::text(options.fabrics, "fabrics")?,
            input::text(options.shm_path, "shm_path")?,
            input::text(options.tcp_listen, "tcp_listen")?,
            input::text(options.tcp_advertise, "tcp_advertise")?,
            input::text(options.tcp_secret, "tcp_secret")?,
        )
    };
    let mut builder = tranship_transport::Engine::builder();
    for fabric in fabrics.unwrap_or("shm").split(',').map(str::trim) {
        builder = match fabric {
            "shm" => {
                let config = shm::Config::new();
                builder.fabric(match path {
                    Some(path) => config.listen_at(path),
                    None => config,
                })
            }
            "tcp" => {
                let mut config = tcp::Config::new();
                if let Some(endpoint) = listen {
                    config = config.listen(endpoint);
                }
                if let Some(endpoint) = advertise {
                    config = config.advertise(endpoint);
                }
                if let Some(secret) = secret {
                    config = config.token(secret);
                }
                builder.fabric(config)
            }
            other => {
                let text = format!("fabric {other:?}: this library has shm and tcp");
                return Err(Failure::new(tranship_status_t::TRANSHIP_UNSUPPORTED, text));
            }
        };
    }
    if let Some(span) = input::span(options.deadline_us)? {
        builder = builder.deadline(span);
    }
    if let Some(span) = input::span(options.watch_every_us)? {
        builder = builder.watch_every(span);
    }
    if options.counters != 0 {
        let counters = u16::try_from(options.counters).map_err(|_| {
            Failure::invalid(format!("{} counters: at most {}", options.counters, u16::MAX))
        })?;
        builder = builder.counters(counters);
    }
    Ok(builder.polling(polling(options.polling)?).drive(drive(options.drive)?))
}

/// Opens an engine. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_open(
    options: *const tranship_engine_options_t,
    engine: *mut *mut tranship_engine_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(engine, "engine")?;
        let engine = builder(&input::options(options)?)?.build()?;
        out.set(handle::open(Engine { engine, held: Mutex::default() })?);
        Ok(())
    })
}

/// Ends the engine: refuses new work, ends what is in flight, revokes its windows, and returns once no
/// transfer can touch its memory. The handle is closed in any case; those of its regions, windows, queues
/// and so on are closed one by one. TRANSHIP_NOT_FENCED: not proven within `timeout_us`; memory that
/// could not be fenced stays mapped, and what was registered must stay valid, for the rest of the
/// process.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_engine_close(
    engine: *mut tranship_engine_t,
    timeout_us: u64,
) -> tranship_status_t {
    call(|| {
        let timeout = input::wait(timeout_us)?;
        let engine = handle::close::<Engine>(engine)?;
        Ok(engine.engine.close(timeout)?)
    })
}

/// Which engine this is, 16 bytes: new at every start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_id(
    engine: *mut tranship_engine_t,
    id: *mut [u8; 16],
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let id = Out::new(id, "id")?;
        id.set(handle::get::<Engine>(engine)?.engine.id().0.to_be_bytes());
        Ok(())
    })
}

/// Where peers reach it: the `index`-th address, one a fabric, the best first. TRANSHIP_NOT_READY
/// when there are no more. For `buffer`, `capacity` and `len` see "Texts and bytes" above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_address(
    engine: *mut tranship_engine_t,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let engine = handle::get::<Engine>(engine)?;
        let addresses = engine.engine.addresses();
        let address = addresses.get(index).ok_or_else(|| {
            let text = format!("address {index}: the engine has {}", addresses.len());
            Failure::new(tranship_status_t::TRANSHIP_NOT_READY, text)
        })?;
        output::text(&address.to_string(), buffer, capacity, len)
    })
}

/// The longest message that every fabric of the engine carries, bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_message_bytes_max(
    engine: *mut tranship_engine_t,
    bytes: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let bytes = Out::new(bytes, "bytes")?;
        bytes.set(handle::get::<Engine>(engine)?.engine.message_bytes_max());
        Ok(())
    })
}

/// What it has counted; `stats` begins with TRANSHIP_INIT(tranship_engine_stats_t).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_stats(
    engine: *mut tranship_engine_t,
    stats: *mut tranship_engine_stats_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let counted = handle::get::<Engine>(engine)?.engine.stats();
        output::sized(stats, counted.into(), "stats")
    })
}

/// Does a bounded amount of work without waiting; `worked`, which may be NULL, is 1 if there was any.
/// Needed only with TRANSHIP_DRIVE_CALLER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_engine_progress(
    engine: *mut tranship_engine_t,
    worked: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let moved = handle::get::<Engine>(engine)?.engine.progress();
        if !worked.is_null() {
            Out::new(worked, "worked")?.set(u32::from(moved));
        }
        Ok(())
    })
}

impl From<Stats> for tranship_engine_stats_t {
    fn from(stats: Stats) -> Self {
        Self {
            size: size_of::<Self>(),
            submitted: stats.submitted,
            done: stats.done,
            rejected: stats.rejected,
            fenced: stats.fenced,
            lost: stats.lost,
            recovered: stats.recovered,
            written_bytes: stats.written_bytes,
            read_bytes: stats.read_bytes,
            messages_sent: stats.messages_sent,
            messages_received: stats.messages_received,
            immediates: stats.immediates,
            stray_immediates: stats.stray_immediates,
            parked: stats.parked,
            connections: stats.connections,
            disconnections: stats.disconnections,
            windows_fenced: stats.windows_fenced,
            fallbacks: stats.fallbacks,
        }
    }
}
