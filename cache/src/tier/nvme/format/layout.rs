//! Where things are.

use std::ops::RangeInclusive;

use super::log;
use crate::tier::nvme::disk::PAGE_BYTES;

/// Pages in front of the index log: the superblock, and its copy on the last of them.
pub(crate) const HEAD_PAGES: u64 = 16;
/// Fewest segments of a store: one open, one closing, one being reclaimed, and one to write it to.
pub(crate) const SEGMENTS_MIN: u64 = 4;
/// Fewest pages of a segment.
pub(crate) const SEGMENT_PAGES_MIN: u64 = 8;
/// Most pages of a segment: places in it are kept in 16 bits.
pub(crate) const SEGMENT_PAGES_MAX: u64 = 1 << 16;
/// What a segment may have, bytes; whole pages of them.
pub const SEGMENT_BYTES: RangeInclusive<u64> =
    SEGMENT_PAGES_MIN * PAGE_BYTES..=SEGMENT_PAGES_MAX * PAGE_BYTES;
/// Most pages of a store: places are kept in 32 bits.
const PAGES_MAX: u64 = 1 << 32;
/// What segments begin on a multiple of, where they are as long.
const ALIGN_PAGES: u64 = 256;

/// How a device of some size is divided; follows from the two figures of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Pages of a segment.
    pub(crate) segment_pages: u32,
    /// Segments.
    pub(crate) segments: u32,
    /// Pages of one half of the index log.
    pub(crate) half_pages: u32,
    /// First page of the first segment.
    pub(crate) first_page: u32,
}

/// The shortest device, of whole segments, that a store with such segments can be on; none when there
/// are no such segments.
#[must_use]
pub fn least_bytes(segment_bytes: u64) -> Option<u64> {
    let fits = SEGMENT_BYTES.contains(&segment_bytes) && segment_bytes.is_multiple_of(PAGE_BYTES);
    let mut lens = (SEGMENTS_MIN..).map(|segments| segments * segment_bytes);
    fits.then(|| lens.find(|bytes| Layout::new(*bytes, segment_bytes).is_some()))?
}

impl Layout {
    /// Divides a device; none when there is no room for [`SEGMENTS_MIN`] segments.
    pub(crate) fn new(bytes: u64, segment_bytes: u64) -> Option<Self> {
        let (pages, segment_pages) =
            ((bytes / PAGE_BYTES).min(PAGES_MAX), segment_bytes / PAGE_BYTES);
        if !segment_bytes.is_multiple_of(PAGE_BYTES)
            || !(SEGMENT_PAGES_MIN..=SEGMENT_PAGES_MAX).contains(&segment_pages)
        {
            return None;
        }
        // The log is sized for more segments than will fit beside it, which costs next to nothing.
        let half_pages = log::half_pages(pages / segment_pages, segment_pages);
        let first_page =
            (HEAD_PAGES + 2 * half_pages).next_multiple_of(ALIGN_PAGES.min(segment_pages));
        let segments = pages.checked_sub(first_page)? / segment_pages;
        (segments >= SEGMENTS_MIN).then_some(Self {
            segment_pages: segment_pages as u32,
            segments: segments as u32,
            half_pages: half_pages as u32,
            first_page: first_page as u32,
        })
    }

    /// Bytes of a segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        u64::from(self.segment_pages) * PAGE_BYTES
    }

    /// The page of the device at `page` of a segment.
    pub(crate) fn page(&self, segment: u32, page: u32) -> u32 {
        self.first_page + segment * self.segment_pages + page
    }

    /// The segment of a page of the device, and the page in it.
    pub(crate) fn split(&self, page: u32) -> (u32, u32) {
        let page = page - self.first_page;
        (page / self.segment_pages, page % self.segment_pages)
    }

    /// First byte of a page of a segment.
    pub(crate) fn byte(&self, segment: u32, page: u32) -> u64 {
        u64::from(self.page(segment, page)) * PAGE_BYTES
    }

    /// First byte of a page of a half of the index log.
    pub(crate) fn log_byte(&self, half: usize, page: u32) -> u64 {
        let half = half as u64 * u64::from(self.half_pages);
        (HEAD_PAGES + half + u64::from(page)) * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_inside_and_apart() {
        for (bytes, segment) in [(1 << 20, 64 << 10), (4 << 40, 64 << 20), (16 << 40, 256 << 20)] {
            let layout = Layout::new(bytes, segment).unwrap();
            assert!(layout.log_byte(1, layout.half_pages) <= layout.byte(0, 0));
            assert!(layout.byte(layout.segments - 1, layout.segment_pages) <= bytes, "{layout:?}");
            assert_eq!(layout.split(layout.page(3, 7)), (3, 7));
            let overhead = u64::from(layout.half_pages) * 2 * PAGE_BYTES;
            assert!(bytes < 1 << 40 || overhead < bytes / 4000, "{overhead} bytes of log");
        }
        assert_eq!(Layout::new(1 << 20, 64 << 10 | 512), None);
        assert_eq!(Layout::new(1 << 20, 1 << 20), None);
        assert_eq!(Layout::new(0, 64 << 10), None);
    }
}
