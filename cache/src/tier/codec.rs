//! What may make blocks smaller on their way to a slow tier, without loss.
//!
//! A block is cut into chunks that are coded one by one, so that a range of it is decoded without the
//! rest. The bytes of a chunk are sorted into planes by their place in an element (the exponents of
//! `bf16` compress, its mantissas do not), and each plane is compressed for itself, or kept as it is
//! where that does not pay. A chunk that does not become shorter is stored raw.
//!
//! An encoded chunk of elements of `width` bytes:
//!
//! ```text
//! width × u32   bytes of each plane; bit 31: the plane is as it was
//! …             the planes, one after the other
//! …             what is left behind the last whole element, as it was
//! ```
//!
//! Checksums are of the original bytes, and are whoever stores the chunk's business.

mod advice;

pub use advice::{Advisor, Choice, Measured, pays};

/// Marks a plane that is stored as it was.
const RAW: u32 = 1 << 31;
/// Level of zstd: the next one costs twice the time for a hundredth of the size.
const ZSTD_LEVEL: i32 = 1;
/// A plane, or a chunk, is stored as it was unless it becomes this part shorter: 1/32.
const GAIN_SHIFT: u32 = 5;
/// Largest element, bytes.
const WIDTH_MAX: usize = 8;

/// How chunks are compressed, behind the planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    None,
    /// LZ4: fast.
    Lz4,
    /// Zstandard: smaller.
    Zstd,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// Its number in file formats.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.number() == number)
    }

    /// The name in settings and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Bytes that are no encoded chunk of the length that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an encoded chunk is damaged: {0}")]
pub struct Damaged(&'static str);

/// True for the sizes of elements that planes are made of.
#[must_use]
pub const fn is_width(width: u8) -> bool {
    matches!(width, 1 | 2 | 4 | 8)
}

/// Makes chunks shorter.
pub struct Encoder {
    codec: Codec,
    width: u8,
    planes: Vec<u8>,
    out: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// For elements of `width` bytes: 1, 2, 4 or 8.
    ///
    /// # Panics
    /// For another width.
    #[must_use]
    pub fn new(codec: Codec, width: u8) -> Self {
        assert!(is_width(width), "elements of {width} bytes; use 1, 2, 4 or 8");
        let zstd = (codec == Codec::Zstd)
            .then(|| zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("a level that zstd knows"));
        Self { codec, width, planes: Vec::new(), out: Vec::new(), zstd }
    }

    /// Which codec it is.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The chunk, encoded; none when that would not be shorter, and it is to be stored as it is.
    pub fn encode(&mut self, chunk: &[u8]) -> Option<&[u8]> {
        let width = usize::from(self.width);
        let plane = chunk.len() / width;
        if self.codec == Codec::None || plane == 0 {
            return None;
        }
        self.planes.resize(plane * width, 0);
        split(width, &chunk[..plane * width], &mut self.planes);
        self.out.clear();
        self.out.resize(width * 4, 0);
        for index in 0..width {
            let bytes = &self.planes[index * plane..][..plane];
            let at = self.out.len();
            let written = compress(self.codec, self.zstd.as_mut(), bytes, &mut self.out);
            let head = match written {
                Some(len) if len + (plane >> GAIN_SHIFT) <= plane => len as u32,
                _ => {
                    self.out.truncate(at);
                    self.out.extend_from_slice(bytes);
                    plane as u32 | RAW
                }
            };
            self.out[index * 4..][..4].copy_from_slice(&head.to_le_bytes());
        }
        self.out.extend_from_slice(&chunk[plane * width..]);
        let gain = (chunk.len() >> GAIN_SHIFT).max(1);
        (self.out.len() + gain <= chunk.len()).then_some(&self.out[..])
    }
}

/// Appends the compressed bytes and says how many there are; none when the codec gave up.
fn compress(
    codec: Codec,
    zstd: Option<&mut zstd::bulk::Compressor<'static>>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Option<usize> {
    let at = out.len();
    let room = match codec {
        Codec::None => return None,
        Codec::Lz4 => lz4_flex::block::get_maximum_output_size(bytes.len()),
        Codec::Zstd => zstd::zstd_safe::compress_bound(bytes.len()),
    };
    out.resize(at + room, 0);
    let len = match (codec, zstd) {
        (Codec::Lz4, _) => lz4_flex::block::compress_into(bytes, &mut out[at..]).ok(),
        (_, Some(zstd)) => zstd.compress_to_buffer(bytes, &mut out[at..]).ok(),
        _ => None,
    };
    out.truncate(at + len.unwrap_or(0));
    len
}

/// Makes chunks whole again.
pub struct Decoder {
    planes: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// For chunks of any codec.
    #[must_use]
    pub fn new() -> Self {
        Self { planes: Vec::new(), zstd: None }
    }

    /// Fills `chunk`, whose length is known, from what [`Encoder::encode`] gave. `stored` may come from
    /// anybody: nothing but `chunk` is written to, and no more memory is taken than it has.
    ///
    /// # Errors
    /// When `stored` is no chunk of that length; what `chunk` holds then means nothing.
    pub fn decode(
        &mut self,
        codec: Codec,
        width: u8,
        stored: &[u8],
        chunk: &mut [u8],
    ) -> Result<(), Damaged> {
        if !is_width(width) {
            return Err(Damaged("elements of a size that does not exist"));
        }
        let width = usize::from(width);
        let plane = chunk.len() / width;
        let heads = stored.get(..width * 4).ok_or(Damaged("it ends within its head"))?;
        let mut rest = &stored[width * 4..];
        self.planes.resize(plane * width, 0);
        for index in 0..width {
            let head = u32::from_le_bytes(heads[index * 4..][..4].try_into().expect("four bytes"));
            let len = (head & !RAW) as usize;
            let bytes = rest.get(..len).ok_or(Damaged("it ends within a plane"))?;
            rest = &rest[len..];
            let into = &mut self.planes[index * plane..][..plane];
            if head & RAW != 0 {
                if len != plane {
                    return Err(Damaged("a plane has the wrong length"));
                }
                into.copy_from_slice(bytes);
            } else {
                decompress(codec, &mut self.zstd, bytes, into)?;
            }
        }
        if rest.len() != chunk.len() - plane * width {
            return Err(Damaged("its end has the wrong length"));
        }
        let (whole, tail) = chunk.split_at_mut(plane * width);
        join(width, &self.planes, whole);
        tail.copy_from_slice(rest);
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Fills `into` or fails.
fn decompress(
    codec: Codec,
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    bytes: &[u8],
    into: &mut [u8],
) -> Result<(), Damaged> {
    let len = match codec {
        Codec::None => return Err(Damaged("a plane is compressed by no codec")),
        Codec::Lz4 => lz4_flex::block::decompress_into(bytes, into).ok(),
        Codec::Zstd => {
            let zstd = zstd.get_or_insert_with(|| {
                zstd::bulk::Decompressor::new().expect("a decompressor needs nothing but memory")
            });
            zstd.decompress_to_buffer(bytes, into).ok()
        }
    };
    match len {
        Some(len) if len == into.len() => Ok(()),
        Some(_) => Err(Damaged("a plane has the wrong length")),
        None => Err(Damaged("a plane cannot be decompressed")),
    }
}

fn split(width: usize, chunk: &[u8], planes: &mut [u8]) {
    match width {
        1 => planes.copy_from_slice(chunk),
        2 => split_by::<2>(chunk, planes),
        4 => split_by::<4>(chunk, planes),
        _ => split_by::<WIDTH_MAX>(chunk, planes),
    }
}

fn split_by<const WIDTH: usize>(chunk: &[u8], planes: &mut [u8]) {
    let plane = planes.len() / WIDTH;
    for (index, bytes) in planes.chunks_exact_mut(plane).enumerate() {
        let (elements, _) = chunk.as_chunks::<WIDTH>();
        for (byte, element) in bytes.iter_mut().zip(elements) {
            *byte = element[index];
        }
    }
}

fn join(width: usize, planes: &[u8], chunk: &mut [u8]) {
    match width {
        1 => chunk.copy_from_slice(planes),
        2 => join_two(planes, chunk),
        4 => join_by::<4>(planes, chunk),
        _ => join_by::<WIDTH_MAX>(planes, chunk),
    }
}

fn join_two(planes: &[u8], chunk: &mut [u8]) {
    let (low, high) = planes.split_at(planes.len() / 2);
    let (elements, _) = chunk.as_chunks_mut::<2>();
    for ((element, low), high) in elements.iter_mut().zip(low).zip(high) {
        *element = [*low, *high];
    }
}

fn join_by<const WIDTH: usize>(planes: &[u8], chunk: &mut [u8]) {
    let plane = planes.len() / WIDTH;
    if plane == 0 {
        return;
    }
    let (elements, _) = chunk.as_chunks_mut::<WIDTH>();
    for (index, bytes) in planes.chunks_exact(plane).enumerate() {
        for (element, byte) in elements.iter_mut().zip(bytes) {
            element[index] = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Like `bf16` near one: exponents that repeat, mantissas that do not.
    fn floats(len: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut byte = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|at| if at % 2 == 0 { byte() } else { 0x3f - (byte() & 1) }).collect()
    }

    fn round_trip(codec: Codec, width: u8, chunk: &[u8]) -> Option<usize> {
        let mut encoder = Encoder::new(codec, width);
        let stored = encoder.encode(chunk)?;
        let mut back = vec![0xee; chunk.len()];
        Decoder::new().decode(codec, width, stored, &mut back).unwrap();
        assert_eq!(back, chunk);
        Some(stored.len())
    }

    #[test]
    fn floats_become_shorter() {
        let chunk = floats(65_537);
        let zstd = round_trip(Codec::Zstd, 2, &chunk).unwrap();
        assert!(zstd < chunk.len() * 2 / 3, "{zstd}");
        assert_eq!(round_trip(Codec::None, 2, &chunk), None);
        assert!(round_trip(Codec::Lz4, 2, &chunk).is_some_and(|len| len < chunk.len()));
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let noise: Vec<u8> = floats(65_536).into_iter().step_by(2).collect();
        for codec in Codec::ALL {
            assert_eq!(round_trip(codec, 2, &noise), None, "{codec:?}");
        }
    }

    #[test]
    fn what_does_not_become_shorter_is_stored_as_it_is() {
        for len in 1..200 {
            let chunk = [&[0; 4][..], &vec![0xad; len]].concat();
            for (codec, width) in Codec::ALL.into_iter().flat_map(|codec| [(codec, 1), (codec, 2)])
            {
                let stored = round_trip(codec, width, &chunk);
                assert!(stored.is_none_or(|stored| stored < chunk.len()), "{codec:?} {len}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        // A plane that says it is a gibibyte of zeros, in few bytes.
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let stored = [&(bomb.len() as u32).to_le_bytes()[..], &bomb].concat();
        let mut chunk = vec![0; 4096];
        let refused = Decoder::new().decode(Codec::Zstd, 1, &stored, &mut chunk);
        assert_eq!(refused, Err(Damaged("a plane cannot be decompressed")));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            seed: Vec<u8>, times in 1_usize..200, width in prop::sample::select(vec![1_u8, 2, 4, 8]),
        ) {
            let chunk = seed.repeat(times);
            for codec in Codec::ALL {
                round_trip(codec, width, &chunk);
            }
        }

        #[test]
        fn damaged_chunks_are_errors_or_other_bytes(
            at: prop::sample::Index, bit in 0_u8..8, cut: prop::sample::Index, len in 0_usize..9000,
        ) {
            let chunk = floats(8192);
            for codec in [Codec::Lz4, Codec::Zstd] {
                let mut stored = Encoder::new(codec, 2).encode(&chunk).unwrap().to_vec();
                let place = at.index(stored.len());
                stored[place] ^= 1 << bit;
                let mut back = vec![0; len];
                let _ = Decoder::new().decode(codec, 2, &stored, &mut back);
                stored.truncate(cut.index(stored.len()));
                let mut whole = vec![0; chunk.len()];
                prop_assert!(Decoder::new().decode(codec, 2, &stored, &mut whole).is_err());
            }
        }

        #[test]
        fn any_bytes_are_safe(stored: Vec<u8>, len in 0_usize..9000, width: u8) {
            for codec in Codec::ALL {
                let mut chunk = vec![0; len];
                let _ = Decoder::new().decode(codec, width, &stored, &mut chunk);
            }
        }
    }
}
