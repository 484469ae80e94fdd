//! Starting transfers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tranship_transport::{
    Immediate, Lane, Priority, RemoteSlice, Slice, Slot, Submission, SubmitError,
};

use crate::call::call;
use crate::engine::{Engine, tranship_engine_t};
use crate::handle;
use crate::input::{self, option_structs};
use crate::output::{Out, OutList};
use crate::pages::{Plan, tranship_plan_t};
use crate::peer::tranship_peer_t;
use crate::queue::{Queue, tranship_queue_t};
use crate::region::{Region, tranship_region_t};
use crate::remote::{Remote, tranship_remote_t};
use crate::status::{Failure, Result, of_outcome, tranship_status_t};
use crate::transfer::{Transfer, tranship_transfer_t};

/// For throughput.
pub const TRANSHIP_LANE_BULK: u32 = 0;
/// Ahead of everything in bulk.
pub const TRANSHIP_LANE_LATENCY: u32 = 1;

/// Where nothing else is said.
pub const TRANSHIP_PRIORITY_NORMAL: u32 = 0;
/// What somebody waits for now.
pub const TRANSHIP_PRIORITY_HIGH: u32 = 1;
/// What may be needed later.
pub const TRANSHIP_PRIORITY_LOW: u32 = 2;

/// Deliver `slot` to the peer once the payload is visible there.
pub const TRANSHIP_SUBMIT_IMMEDIATE: u32 = 1;

/// How a transfer is submitted. 0 and NULL are "as usual".
///
/// Its end is put into `queue` with `user_data`, or asked of the transfer that the call gives out. With
/// neither, the call waits for the end: TRANSHIP_OK says that all bytes have arrived, TRANSHIP_REJECTED,
/// TRANSHIP_FENCED or TRANSHIP_LOST that they have not.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_submit_options_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// Where its end is put; NULL for none.
    pub queue: *mut tranship_queue_t,
    /// Comes back with its end.
    pub user_data: u64,
    /// How long it may take; as usual what the engine was opened with.
    pub deadline_us: u64,
    /// TRANSHIP_LANE_*.
    pub lane: u32,
    /// TRANSHIP_PRIORITY_*: what it goes ahead of in the bulk lane.
    pub priority: u32,
    /// TRANSHIP_SUBMIT_*, or-ed.
    pub flags: u32,
    /// With TRANSHIP_SUBMIT_IMMEDIATE: the peer's, of tranship_counter_slot().
    pub slot: u32,
}

/// One peer's part of a scatter.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_target_t {
    /// Where its part goes.
    pub remote: *mut tranship_remote_t,
    /// At which byte of the window.
    pub remote_offset: u64,
    /// Where its part starts in the source.
    pub local_offset: u64,
    /// How long it is, bytes.
    pub len: u64,
    /// Comes back with its end, in place of that of the options.
    pub user_data: u64,
    /// TRANSHIP_SUBMIT_IMMEDIATE, or 0.
    pub flags: u32,
    /// With TRANSHIP_SUBMIT_IMMEDIATE.
    pub slot: u32,
}

option_structs! {
    tranship_submit_options_t: 48;
}

/// Options, read and checked.
struct Terms {
    queue: Option<Arc<Queue>>,
    user_data: u64,
    deadline: Option<std::time::Duration>,
    lane: Lane,
    priority: Priority,
    slot: Option<Slot>,
}

fn slot(flags: u32, slot: u32) -> Result<Option<Slot>> {
    match flags {
        0 => Ok(None),
        TRANSHIP_SUBMIT_IMMEDIATE => Ok(Some(Immediate(slot).into())),
        other => Err(Failure::invalid(format!("flags {other:#x}: use TRANSHIP_SUBMIT_*"))),
    }
}

impl Terms {
    /// # Safety
    /// As for [`input::options`].
    unsafe fn read(options: *const tranship_submit_options_t, engine: &Engine) -> Result<Self> {
        // SAFETY: as the caller says.
        let options = unsafe { input::options(options) }?;
        let queue = if options.queue.is_null() {
            None
        } else {
            let queue = handle::get::<Queue>(options.queue)?;
            queue.check(&engine.engine)?;
            Some(queue)
        };
        let lane = match options.lane {
            TRANSHIP_LANE_BULK => Lane::Bulk,
            TRANSHIP_LANE_LATENCY => Lane::Latency,
            other => return Err(Failure::invalid(format!("lane {other}: use TRANSHIP_LANE_*"))),
        };
        let priority = match options.priority {
            TRANSHIP_PRIORITY_NORMAL => Priority::Normal,
            TRANSHIP_PRIORITY_HIGH => Priority::High,
            TRANSHIP_PRIORITY_LOW => Priority::Low,
            other => {
                return Err(Failure::invalid(format!("priority {other}: use TRANSHIP_PRIORITY_*")));
            }
        };
        Ok(Self {
            queue,
            user_data: options.user_data,
            deadline: input::span(options.deadline_us)?,
            lane,
            priority,
            slot: slot(options.flags, options.slot)?,
        })
    }

    fn apply<'a>(&self, mut submission: Submission<'a>) -> Submission<'a> {
        submission = submission.lane(self.lane).priority(self.priority);
        if let Some(deadline) = self.deadline {
            submission = submission.deadline(deadline);
        }
        match self.slot {
            Some(slot) => submission.immediate(slot),
            None => submission,
        }
    }
}

/// Starts a transfer whose end goes to the queue, if there is one.
fn start(submission: Submission<'_>, terms: &Terms) -> Result<Arc<tranship_transport::Transfer>> {
    let Some(queue) = &terms.queue else { return Ok(Arc::new(submission.submit()?)) };
    let ending = queue.shared.take_place(terms.user_data)?;
    let mut transfer = submission.submit().map_err(|error: SubmitError| {
        ending.give_back();
        Failure::from(error)
    })?;
    let waker = Waker::from(Arc::clone(&ending));
    // Ready or not: `is_of` looks again.
    let _ = Future::poll(Pin::new(&mut transfer), &mut Context::from_waker(&waker));
    let transfer = Arc::new(transfer);
    ending.is_of(Arc::clone(&transfer));
    Ok(transfer)
}

/// Starts a transfer, or waits for its end when nobody would learn of it.
///
/// # Safety
/// `options` and `transfer` are as the header asks.
unsafe fn submit(
    engine: *mut tranship_engine_t,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
    describe: impl for<'a> FnOnce(&'a tranship_transport::Engine) -> Result<Submission<'a>>,
) -> tranship_status_t {
    // SAFETY: as the caller says.
    call(|| unsafe {
        let out = if transfer.is_null() { None } else { Some(Out::handle(transfer, "transfer")?) };
        let engine = handle::get::<Engine>(engine)?;
        let terms = Terms::read(options, &engine)?;
        let submission = terms.apply(describe(&engine.engine)?);
        if out.is_none() && terms.queue.is_none() {
            return of_outcome(submission.wait());
        }
        let started = start(submission, &terms)?;
        if let Some(out) = out {
            let user_data = terms.user_data;
            out.set(handle::open(Transfer { transfer: started, user_data })?);
        }
        Ok(())
    })
}

fn sides(
    region: *mut tranship_region_t,
    local_offset: u64,
    remote: *mut tranship_remote_t,
    remote_offset: u64,
    len: u64,
) -> Result<(Slice, RemoteSlice)> {
    let local = handle::get::<Region>(region)?.slice(local_offset, len)?;
    let remote = handle::get::<Remote>(remote)?.slice(remote_offset, len)?;
    Ok((local, remote))
}

/// Puts `len` bytes at `local_offset` of a region into a peer's window at `remote_offset`. `options` may
/// be NULL; so may `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_write(
    engine: *mut tranship_engine_t,
    region: *mut tranship_region_t,
    local_offset: u64,
    remote: *mut tranship_remote_t,
    remote_offset: u64,
    len: u64,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            let (local, remote) = sides(region, local_offset, remote, remote_offset, len)?;
            Ok(engine.write(local, remote))
        })
    }
}

/// Gets `len` bytes at `remote_offset` of a peer's window into a region at `local_offset`. `options` may be
/// NULL; so may `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_read(
    engine: *mut tranship_engine_t,
    remote: *mut tranship_remote_t,
    remote_offset: u64,
    region: *mut tranship_region_t,
    local_offset: u64,
    len: u64,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            let (local, remote) = sides(region, local_offset, remote, remote_offset, len)?;
            Ok(engine.read(remote, local))
        })
    }
}

/// Puts pieces of a region into pieces of a peer's window, as a plan says. An immediate comes once, after
/// all of them. `options` may be NULL; so may `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_write_paged(
    engine: *mut tranship_engine_t,
    region: *mut tranship_region_t,
    remote: *mut tranship_remote_t,
    plan: *mut tranship_plan_t,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            let local = handle::get::<Region>(region)?.whole()?;
            let remote = handle::get::<Remote>(remote)?.whole()?;
            Ok(engine.write_paged(local, remote, handle::get::<Plan>(plan)?.0.clone()))
        })
    }
}

/// Gets pieces of a peer's window into pieces of a region, as a plan says. `options` may be NULL; so may
/// `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_read_paged(
    engine: *mut tranship_engine_t,
    remote: *mut tranship_remote_t,
    region: *mut tranship_region_t,
    plan: *mut tranship_plan_t,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            let local = handle::get::<Region>(region)?.whole()?;
            let remote = handle::get::<Remote>(remote)?.whole()?;
            Ok(engine.read_paged(remote, local, handle::get::<Plan>(plan)?.0.clone()))
        })
    }
}

/// Delivers an immediate to a peer, without payload: the slot of one of its counters. `options` may be NULL;
/// so may `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_signal(
    engine: *mut tranship_engine_t,
    to: tranship_peer_t,
    slot: u32,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            Ok(engine.signal(to.into(), Immediate(slot).into()))
        })
    }
}

/// Sends a message of at most tranship_engine_message_bytes_max() bytes, which are copied. It ends well when
/// it is on its way in order, not when the peer has read it. `options` may be NULL; so may `transfer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_send(
    engine: *mut tranship_engine_t,
    to: tranship_peer_t,
    bytes: *const u8,
    len: usize,
    options: *const tranship_submit_options_t,
    transfer: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        submit(engine, options, transfer, |engine| {
            let max = engine.message_bytes_max();
            if len > max {
                let text = format!("a message of {len} bytes: at most {max} are carried");
                return Err(Failure::invalid(text));
            }
            Ok(engine.send(to.into(), input::bytes(bytes, len, "bytes")?))
        })
    }
}

/// Gives each peer its part of a region, all started together. The queue of the options gets one end a
/// target, or `transfers`, which may be NULL, one transfer a target. With neither, the call waits for all
/// and answers with the first end that is not well.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_scatter(
    engine: *mut tranship_engine_t,
    region: *mut tranship_region_t,
    targets: *const tranship_target_t,
    count: usize,
    options: *const tranship_submit_options_t,
    transfers: *mut *mut tranship_transfer_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let targets = input::list(targets, count, "targets")?;
        let out = OutList::optional(transfers, count, "transfers")?;
        out.fill((0..count).map(|_| std::ptr::null_mut()));
        let engine = handle::get::<Engine>(engine)?;
        let terms = Terms::read(options, &engine)?;
        if terms.slot.is_some() {
            return Err(Failure::invalid(
                "a scatter has a slot for each target, not one of its own",
            ));
        }
        scatter(&engine, region, targets, terms, (!transfers.is_null()).then_some(&out))
    })
}

fn scatter(
    engine: &Engine,
    region: *mut tranship_region_t,
    targets: &[tranship_target_t],
    mut terms: Terms,
    out: Option<&OutList<*mut tranship_transfer_t>>,
) -> Result {
    let mut batch = engine.engine.batch();
    let mut endings = Vec::new();
    for target in targets {
        let (local, remote) =
            sides(region, target.local_offset, target.remote, target.remote_offset, target.len)?;
        terms.slot = slot(target.flags, target.slot)?;
        batch.push(terms.apply(engine.engine.write(local, remote)));
    }
    if let Some(queue) = &terms.queue {
        for target in targets {
            match queue.shared.take_place(target.user_data) {
                Ok(ending) => endings.push(ending),
                Err(full) => {
                    endings
                        .iter()
                        .for_each(|ending: &Arc<crate::queue::Ending>| ending.give_back());
                    return Err(full);
                }
            }
        }
    }
    if out.is_none() && endings.is_empty() {
        return batch.wait().into_iter().try_for_each(of_outcome);
    }
    let mut endings = endings.into_iter();
    for (index, (mut transfer, target)) in batch.submit().into_iter().zip(targets).enumerate() {
        let ending = endings.next();
        if let Some(ending) = &ending {
            let waker = Waker::from(Arc::clone(ending));
            let _ = Future::poll(Pin::new(&mut transfer), &mut Context::from_waker(&waker));
        }
        let transfer = Arc::new(transfer);
        if let Some(ending) = ending {
            ending.is_of(Arc::clone(&transfer));
        }
        if let Some(out) = out {
            out.set(index, handle::open(Transfer { transfer, user_data: target.user_data })?);
        }
    }
    Ok(())
}
