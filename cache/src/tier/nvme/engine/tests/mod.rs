//! Single mishaps, each made on purpose; `tests/nvme` has them come as they may.

mod hang;
mod lanes;
mod stripes;
mod tails;

use crate::tier::nvme::Options;
use crate::tier::nvme::disk::sim::Device;
use crate::tier::nvme::testing::{PAGE, Stepped};
use crate::time::Millis;

/// Pages of a segment.
const SEGMENT_PAGES: usize = 32;
/// Pages of a device with six segments.
const DEVICE_PAGES: usize = 64 + 6 * SEGMENT_PAGES;

fn options() -> Options {
    let segment_bytes = (SEGMENT_PAGES * PAGE) as u64;
    Options { segment_bytes, bounce_bytes: 1 << 20, flush_every: Millis(0), ..Options::default() }
}

fn device() -> Device {
    Device::new(DEVICE_PAGES * PAGE, 1)
}

fn open(device: &Device, options: &Options) -> Stepped {
    Stepped::open(device.open(), options, 7).expect("the store opens")
}
