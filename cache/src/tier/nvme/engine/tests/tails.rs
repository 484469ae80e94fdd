//! The rest of a block's last page.

use super::{device, open, options};
use crate::tier::nvme::testing::{PAGE, bytes, record, span_at};

#[test]
fn nothing_that_others_left_in_memory_gets_to_the_device() {
    let device = device();
    let mut store = open(&device, &options());
    // Neither begins on a page, so both go through the tier's memory, one after the other.
    for (number, len) in [(1, 3 * PAGE), (2, 100), (3, 2 * PAGE + 1)] {
        let bytes = bytes(number, len);
        let token = store.submit_store(record(number, &bytes), span_at(9, &bytes), true);
        assert_eq!(store.wait(token), Ok(None));
        let image = device.bytes();
        let mut pages = image.chunks_exact(PAGE);
        let last = &bytes[(len - 1) / PAGE * PAGE..];
        let page = pages.find(|page| page.starts_with(last)).expect("it was stored");
        assert!(page[last.len()..].iter().all(|byte| *byte == 0), "block {number}");
    }
}
