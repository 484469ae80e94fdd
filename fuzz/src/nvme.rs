//! Images of the NVMe tier's store.

use tranship_cache::tier::nvme::Options;
use tranship_cache::tier::nvme::disk::sim::Device;
use tranship_cache::tier::nvme::testing::{PAGE, Stepped, record, seal, unpack};
use tranship_cache::time::Millis;
use tranship_transport::checksum::crc64;

/// Longest image that is tried as it is.
const RAW_PAGES_MAX: usize = 256;

/// A store that was closed, and written to again: packed runs of bytes, see `cache/tests/nvme_images.rs`.
pub(crate) const GOLDEN: &[u8] = include_bytes!("../../cache/tests/golden/nvme-v1.bin");

/// An image made of the input: the input itself, or the golden store changed as the input says.
fn image(raw: bool, mut input: &[u8]) -> Vec<u8> {
    if raw {
        let mut image = input[..input.len().min(RAW_PAGES_MAX * PAGE)].to_vec();
        image.resize(image.len().next_multiple_of(PAGE), 0);
        return image;
    }
    let mut image = unpack(GOLDEN);
    let pages = image.len() / PAGE;
    while let [what, page, low, high, len, rest @ ..] = input {
        let start = usize::from(*page) % pages * PAGE;
        let offset = usize::from(u16::from_le_bytes([*low, *high])) % PAGE;
        input = rest;
        match what % 5 {
            0 => {
                let len = usize::from(*len).min(input.len()).min(PAGE - offset);
                image[start + offset..start + offset + len].copy_from_slice(&input[..len]);
                input = &input[len..];
            }
            1 => {
                let to = usize::from(*len) % pages * PAGE;
                image.copy_within(start..start + PAGE, to);
            }
            // The checksum of a superblock, of a summary, of a header or page of the log.
            2 => seal(&mut image[start..start + 512], 504),
            3 => seal(&mut image[start..start + PAGE], PAGE - 80),
            _ => seal(&mut image[start..start + PAGE], 8),
        }
    }
    image
}

/// A device with any bytes. Opening it never panics; what is loaded from it is what its checksum says;
/// what is stored to it comes back; and every job ends.
pub fn nvme_image(bytes: &[u8]) {
    let Some((flags, input)) = bytes.split_first() else { return };
    let image = image(flags & 2 != 0, input);
    if image.is_empty() {
        return;
    }
    let options = Options {
        segment_bytes: 32 * PAGE as u64,
        bounce_bytes: 1 << 20,
        flush_every: Millis(0),
        full_scan: flags & 1 != 0,
        ..Options::default()
    };
    let device = Device::of(image, 1);
    let Ok(mut store) = Stepped::open(device.open(), &options, 9) else { return };
    for (name, len) in store.names() {
        if let Ok((record, bytes)) = store.load(name, len) {
            assert_eq!((crc64(&bytes), bytes.len() as u64), (record.checksum, record.len));
        }
    }
    for number in 0..4 {
        let bytes = [number as u8 + 1; 30_000];
        let record = record(number, &bytes);
        if store.store(record, &bytes, true).is_ok() {
            let found = store.desk().find(&record.name(), store.now.wall);
            assert_eq!(found.expect("it was stored").checksum, record.checksum);
        }
    }
    store.close();
}
