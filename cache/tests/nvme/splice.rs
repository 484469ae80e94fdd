//! What chance hardly ever makes: parts of two histories of a store in one.

use tranship_cache::tier::cold::Job;
use tranship_cache::tier::nvme::Options;
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{PAGE, Stepped, bytes, record};
use tranship_cache::time::Millis;

const SEGMENT_PAGES: usize = 16;
/// First page of the first half of the index log.
const LOG: usize = 16;

fn options() -> Options {
    let segment_bytes = (SEGMENT_PAGES * PAGE) as u64;
    Options { segment_bytes, flush_every: Millis(0), ..Options::default() }
}

fn open(device: &Device, random: u8) -> Stepped {
    Stepped::open(device.open(), &options(), random).expect("the store opens")
}

/// Removes a block, and makes that durable.
fn remove(store: &mut Stepped, number: u64) {
    store.submit(Job::Remove { name: record(number, &[]).name() });
    store.submit(Job::Sync { token: 1000 + number });
    assert_eq!(store.wait(1000 + number), Ok(None));
}

/// The last page that is written of the half of the log.
fn last_page(device: &Device) -> usize {
    let image = device.bytes();
    let written = (LOG..).take_while(|page| image[page * PAGE..].starts_with(b"TRANSIDX"));
    written.last().expect("the log has a page")
}

/// A page of the index log that was lost is not followed by what was written behind it, whatever is
/// written in its place later.
pub(crate) fn a_page_of_another_history_ends_the_log() {
    let before = Device::new((64 + 6 * SEGMENT_PAGES) * PAGE, 1);
    let mut store = open(&before, 1);
    for number in 0..4 {
        let bytes = bytes(number, 5000);
        assert_eq!(store.store(record(number, &bytes), &bytes, true), Ok(None));
    }
    store.close();
    // Two days after the same night.
    let (first, second) = (before.copy(1), before.copy(2));
    let mut store = open(&first, 2);
    remove(&mut store, 0);
    remove(&mut store, 1);
    drop(store);
    let mut store = open(&second, 3);
    remove(&mut store, 2);
    drop(store);
    let last = last_page(&first);
    assert_eq!(last_page(&second) + 1, last, "each removal has a page of its own");
    let mut image = second.bytes();
    image[last * PAGE..][..PAGE].copy_from_slice(&first.bytes()[last * PAGE..][..PAGE]);
    let mut there: Vec<_> = open(&Device::of(image, 4), 4).names();
    there.sort_unstable();
    let mut expected: Vec<_> = [0, 1, 3].map(|number| (record(number, &[]).name(), 5000)).into();
    expected.sort_unstable();
    assert_eq!(there, expected, "a page counts that does not follow the one before it");
}

#[test]
fn a_page_of_another_history() {
    a_page_of_another_history_ends_the_log();
}
