//! Recovery: the index log.

use super::open::OpenError;
use super::scan::Port;
use crate::tier::nvme::disk::PAGE_BYTES;
use crate::tier::nvme::format::log::{Note, Page};
use crate::tier::nvme::format::{Layout, PAGE, Uuid};
use crate::tier::nvme::sabotage::{Defect, is};

/// Pages of the log that are read at once.
const LOG_PAGES: u64 = 64;

/// Where the index log ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnd {
    pub(super) half: usize,
    pub(super) epoch: u64,
    pub(super) next: u32,
    pub(super) chain: u64,
}

/// Reads the half of the index log that counts, and where it ends.
pub(super) fn read_log(
    port: &mut Port<'_>,
    uuid: Uuid,
    layout: &Layout,
) -> Result<(LogEnd, Vec<Note>), OpenError> {
    let mut newest: Option<(LogEnd, Vec<Note>)> = None;
    let mut epoch_max = 0;
    for half in 0..2 {
        let mut end = LogEnd { half, epoch: 0, next: 0, chain: 0 };
        let (mut notes, mut complete) = (Vec::new(), false);
        'half: while end.next < layout.half_pages {
            // Most halves end soon.
            let more = u64::from(end.next).clamp(1, LOG_PAGES);
            let pages = more.min(u64::from(layout.half_pages - end.next));
            let Ok(bytes) = port.read(layout.log_byte(half, end.next), pages * PAGE_BYTES) else {
                break;
            };
            for page in bytes.chunks_exact(PAGE) {
                let Ok((page, crc)) = Page::decode(page, uuid) else { break 'half };
                let first = end.next == 0;
                let follows = page.epoch == end.epoch || first;
                let chained = page.chain == end.chain || is(Defect::BrokenChain);
                if page.index != end.next || !follows || !chained {
                    break 'half;
                }
                end = LogEnd { half, epoch: page.epoch, next: end.next + 1, chain: crc };
                complete |= page.complete;
                notes.extend(page.notes);
            }
        }
        epoch_max = epoch_max.max(end.epoch);
        let later = newest.as_ref().is_none_or(|(other, _)| end.epoch > other.epoch);
        if complete && later {
            newest = Some((end, notes));
        }
    }
    // A log that is lost costs the memory of what was removed, no more. The next note begins a new one.
    let lost = LogEnd { half: 0, epoch: epoch_max, next: layout.half_pages, chain: 0 };
    Ok(newest.unwrap_or((lost, Vec::new())))
}
