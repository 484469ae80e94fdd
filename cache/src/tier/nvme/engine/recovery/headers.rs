//! Whether a page is the header that should be there.

use crate::tier::nvme::format::frame::{self, Header};
use crate::tier::nvme::format::{Layout, PAGE, Uuid};

/// How many pages to read to check a header, if more than there are.
pub(super) fn more_of_header(bytes: &[u8], uuid: Uuid, layout: &Layout) -> Option<u32> {
    let head = frame::peek(bytes, uuid)?;
    let more = head.pages as usize > bytes.len() / PAGE && head.pages < layout.segment_pages;
    more.then_some(head.pages)
}

/// Whether the first page of a segment is that of another one: segments never move.
pub(super) fn is_of_another(bytes: &[u8], uuid: Uuid, segment: u32) -> bool {
    frame::decode(bytes, uuid)
        .is_ok_and(|header| header.head.page == 0 && header.head.segment != segment)
}

/// The header at a page of a segment, if there is one.
pub(super) fn check_header(
    bytes: &[u8],
    uuid: Uuid,
    layout: &Layout,
    segment: u32,
    page: u32,
) -> Option<Header> {
    let header = frame::decode(bytes, uuid).ok()?;
    let head = &header.head;
    let end = u64::from(page) + u64::from(head.pages) + u64::from(head.payload_pages);
    let here = head.segment == segment && head.page == page;
    let first = page > 0 || head.chain == 0;
    (here && first && end <= u64::from(layout.segment_pages)).then_some(header)
}
