//! From a block's span to its image in a pack: head and chunks.

use std::time::Instant;

use tranship_transport::checksum::Crc64;

use super::super::Span;
use super::super::codec::{Advisor, Codec, Decoder, Encoder};
use super::super::cold::Record;
use super::format::{CHUNK_BYTES, Chunk, Head, Listed, head_bytes};

/// The bytes are not those that the record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changed;

/// Whether these are head and chunks of a block, unchanged.
pub(super) fn is_whole(listed: &Listed, image: &[u8]) -> bool {
    let Some(head) = image.get(..head_bytes(listed.len) as usize) else { return false };
    let Ok(head) = Head::decode(head) else { return false };
    let mut rest = &image[head_bytes(listed.len) as usize..];
    let (mut decoder, mut plain) = (Decoder::new(), Vec::new());
    for (index, chunk) in (0..).zip(&head.chunks) {
        let Some((stored, after)) = rest.split_at_checked(chunk.stored as usize) else {
            return false;
        };
        rest = after;
        plain.resize((listed.len - index * CHUNK_BYTES).min(CHUNK_BYTES) as usize, 0);
        let bytes = if chunk.raw {
            stored
        } else if decoder.decode(head.codec, head.width, stored, &mut plain).is_ok() {
            &plain[..]
        } else {
            return false;
        };
        if crate::arena::checksum(bytes) != chunk.checksum {
            return false;
        }
    }
    rest.is_empty() && head.record.name() == listed.name && head.record.checksum == listed.checksum
}

/// Makes images.
pub(super) struct Imager {
    advisor: Advisor,
    encoders: [Encoder; 3],
    width: u8,
    plain: Vec<u8>,
}

impl Imager {
    pub(super) fn new(advisor: Advisor, width: u8) -> Self {
        let encoders = Codec::ALL.map(|codec| Encoder::new(codec, width));
        Self { advisor, encoders, width, plain: Vec::new() }
    }

    pub(super) fn advisor(&mut self) -> &mut Advisor {
        &mut self.advisor
    }

    /// Copies a block out of its span and checks it; how it is coded comes with it.
    pub(super) fn image(
        &mut self,
        record: &Record,
        from: &Span,
    ) -> Result<(Vec<u8>, Codec), Changed> {
        let codec = self.advisor.choose();
        let began = Instant::now();
        let head = head_bytes(record.len) as usize;
        let mut image = Vec::with_capacity(head + record.len as usize);
        image.resize(head, 0);
        let mut chunks = Vec::with_capacity(record.len.div_ceil(CHUNK_BYTES) as usize);
        let mut whole = Crc64::new();
        let mut at = 0;
        while at < record.len {
            let len = (record.len - at).min(CHUNK_BYTES) as usize;
            let begin = image.len();
            let copy = |bytes: &mut [u8]| {
                let copied = from.memory().copy_out(from.offset() + at as usize, bytes);
                copied.expect("a span lies inside its memory")
            };
            let (checksum, raw) = if codec == Codec::None {
                image.resize(begin + len, 0);
                let checksum = copy(&mut image[begin..]);
                whole.update(&image[begin..]);
                (checksum, true)
            } else {
                self.plain.resize(len, 0);
                let checksum = copy(&mut self.plain);
                whole.update(&self.plain);
                let coded = self.encoders[usize::from(codec.number())].encode(&self.plain);
                let raw = coded.is_none();
                image.extend_from_slice(coded.unwrap_or(&self.plain));
                (checksum, raw)
            };
            chunks.push(Chunk { stored: (image.len() - begin) as u32, raw, checksum });
            at += len as u64;
        }
        if whole.finish() != record.checksum {
            return Err(Changed);
        }
        if codec != Codec::None && record.len > 0 {
            self.advisor.coded(record.len, (image.len() - head) as u64, began.elapsed());
        }
        let bytes = Head { record: *record, codec, width: self.width, chunks }.encode();
        image[..bytes.len()].copy_from_slice(&bytes);
        Ok((image, codec))
    }
}
