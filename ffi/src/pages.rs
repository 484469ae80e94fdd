//! Which bytes of the two sides pair.

use tranship_transport::Run;

use crate::call::call;
use crate::handle;
use crate::input;
use crate::output::Out;
use crate::status::{Failure, Result, tranship_status_t};

/// Pieces of one side of a transfer, in the order in which their bytes travel. Offsets count from the
/// start of the region or window that they are used with.
pub struct tranship_pages_t {
    _opaque: [u8; 0],
}

/// Which pieces of this side pair with which of the peer's: made once, used as often as wanted.
pub struct tranship_plan_t {
    _opaque: [u8; 0],
}

/// Pieces of one length at one distance.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_run_t {
    /// Where the first piece starts, bytes.
    pub offset: u64,
    /// How long a piece is, bytes.
    pub bytes: u64,
    /// From the start of a piece to the start of the next, bytes.
    pub stride: u64,
    /// How many pieces.
    pub count: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// A piece.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_range_t {
    /// Where it starts, bytes.
    pub offset: u64,
    /// How long it is, bytes.
    pub len: u64,
}

/// What the handle stands for.
pub struct Pages(tranship_transport::Pages);

/// What the handle stands for.
pub struct Plan(pub(crate) tranship_transport::Plan);

unsafe fn give(
    out: *mut *mut tranship_pages_t,
    pages: impl FnOnce() -> Result<tranship_transport::Pages>,
) -> tranship_status_t {
    call(|| {
        // SAFETY: as the caller says.
        let out = unsafe { Out::handle(out, "pages") }?;
        out.set(handle::open(Pages(pages()?))?);
        Ok(())
    })
}

/// Runs as they are: strided pages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pages_runs(
    runs: *const tranship_run_t,
    count: usize,
    pages: *mut *mut tranship_pages_t,
) -> tranship_status_t {
    let run = |run: &tranship_run_t| match *run {
        tranship_run_t { offset, bytes, stride, count, reserved: 0 } => {
            Ok(Run { offset, bytes, stride, count })
        }
        _ => Err(Failure::invalid("reserved of a run is not 0")),
    };
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        give(pages, || {
            let runs = input::list(runs, count, "runs")?;
            let runs: Vec<Run> = runs.iter().map(run).collect::<Result<_>>()?;
            Ok(tranship_transport::Pages::runs(runs)?)
        })
    }
}

/// The pages of a page table: page `i` starts at `i` times `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pages_table(
    bytes: u64,
    indices: *const u64,
    count: usize,
    pages: *mut *mut tranship_pages_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        give(pages, || {
            let indices = input::list(indices, count, "indices")?;
            Ok(tranship_transport::Pages::table(bytes, indices.iter().copied())?)
        })
    }
}

/// Any pieces, of any lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pages_ranges(
    ranges: *const tranship_range_t,
    count: usize,
    pages: *mut *mut tranship_pages_t,
) -> tranship_status_t {
    // One that ends beyond what can be addressed is refused by its end before its start.
    let range = |it: &tranship_range_t| it.offset..it.offset.wrapping_add(it.len);
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        give(pages, || {
            let ranges = input::list(ranges, count, "ranges")?;
            Ok(tranship_transport::Pages::ranges(ranges.iter().map(range))?)
        })
    }
}

/// The same pieces once for every layer, each time counted from where the layer starts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pages_layers(
    layer: *mut tranship_pages_t,
    starts: *const u64,
    count: usize,
    pages: *mut *mut tranship_pages_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    unsafe {
        give(pages, || {
            let layer = handle::get::<Pages>(layer)?;
            let starts = input::list(starts, count, "starts")?;
            Ok(layer.0.layers(starts.iter().copied())?)
        })
    }
}

/// The bytes of all pieces together, and where the furthest ends. Either may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_pages_extent(
    pages: *mut tranship_pages_t,
    bytes: *mut u64,
    end: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let pages = handle::get::<Pages>(pages)?;
        if !bytes.is_null() {
            Out::new(bytes, "bytes")?.set(pages.0.bytes());
        }
        if !end.is_null() {
            Out::new(end, "end")?.set(pages.0.end());
        }
        Ok(())
    })
}

/// Closes the handle; plans made of it stay.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_pages_close(pages: *mut tranship_pages_t) -> tranship_status_t {
    call(|| handle::close::<Pages>(pages).map(drop))
}

/// Pairs the pages of this side with those of the peer's. Both must have as many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_plan_open(
    local: *mut tranship_pages_t,
    remote: *mut tranship_pages_t,
    plan: *mut *mut tranship_plan_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(plan, "plan")?;
        let (local, remote) = (handle::get::<Pages>(local)?, handle::get::<Pages>(remote)?);
        let plan = tranship_transport::Plan::new(local.0.clone(), remote.0.clone())?;
        out.set(handle::open(Plan(plan))?);
        Ok(())
    })
}

/// Closes the handle. Transfers under way go on.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_plan_close(plan: *mut tranship_plan_t) -> tranship_status_t {
    call(|| handle::close::<Plan>(plan).map(drop))
}
