//! Where the bytes of a paged transfer lie on one side: runs and layers, walked from any byte.
//!
//! On the wire a layout is the number of runs and of layers (32 bits each), then the runs (offset,
//! bytes, stride: 64 bits each; count: 32), then where the layers start (64 bits each), all little
//! endian.

use std::sync::Arc;

use super::frame::{LAYOUT_BYTES_MAX, Malformed, word};
use crate::pages::{Pages, Run};

const RUN_BYTES: usize = 28;
const LAYER_BYTES: usize = 8;
const COUNTS_BYTES: usize = 8;
/// Runs of one layout of one layer at most.
pub(super) const RUNS_MAX: usize = (LAYOUT_BYTES_MAX - COUNTS_BYTES - LAYER_BYTES) / RUN_BYTES;

/// A layout as a peer described it: checked to make sense, not yet against a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    runs: Vec<Run>,
    layers: Vec<u64>,
    bytes: u64,
    end: u64,
}

impl Layout {
    /// The layout in `body`.
    ///
    /// # Errors
    /// When its lengths do not add up or its numbers leave 64 bits.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a layout that makes no sense");
        if body.len() < COUNTS_BYTES || body.len() > LAYOUT_BYTES_MAX {
            return Err(WRONG);
        }
        let count = |at: usize| u32::from_le_bytes(word(body, at)) as usize;
        let (runs, layers) = (count(0), count(4));
        let runs_end = runs.checked_mul(RUN_BYTES).and_then(|it| it.checked_add(COUNTS_BYTES));
        let end = layers.checked_mul(LAYER_BYTES).and_then(|it| it.checked_add(runs_end?));
        if runs == 0 || layers == 0 || end != Some(body.len()) {
            return Err(WRONG);
        }
        let runs_end = runs_end.ok_or(WRONG)?;
        let long = |at: usize| u64::from_le_bytes(word(body, at));
        let runs: Vec<Run> = (COUNTS_BYTES..runs_end)
            .step_by(RUN_BYTES)
            .map(|at| Run {
                offset: long(at),
                bytes: long(at + 8),
                stride: long(at + 16),
                count: u32::from_le_bytes(word(body, at + 24)),
            })
            .collect();
        let layers: Vec<u64> = (runs_end..body.len()).step_by(LAYER_BYTES).map(long).collect();
        Self::new(runs, layers).ok_or(WRONG)
    }

    /// `None` when a piece is empty or ends beyond 64 bits, or all of them together do.
    fn new(runs: Vec<Run>, layers: Vec<u64>) -> Option<Self> {
        let (mut layer_bytes, mut furthest) = (0u64, 0u64);
        for run in &runs {
            let last = u64::from(run.count.checked_sub(1)?).checked_mul(run.stride)?;
            furthest = furthest.max(run.offset.checked_add(last)?.checked_add(run.bytes)?);
            let bytes = run.bytes.checked_mul(u64::from(run.count)).filter(|it| *it > 0)?;
            layer_bytes = layer_bytes.checked_add(bytes)?;
        }
        let highest = layers.iter().copied().max()?;
        let end = highest.checked_add(furthest)?;
        let bytes = layer_bytes.checked_mul(layers.len() as u64)?;
        Some(Self { runs, layers, bytes, end })
    }

    /// The bytes of all pieces together.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the furthest piece ends.
    #[must_use]
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

/// Writes a layout; the reverse of [`Layout::decode`].
pub(super) fn encode(runs: &[Run], layers: &[u64]) -> Vec<u8> {
    let mut body = Vec::with_capacity(encoded_bytes(runs.len(), layers.len()));
    let count = |n: usize| u32::try_from(n).expect("layouts are short").to_le_bytes();
    body.extend(count(runs.len()));
    body.extend(count(layers.len()));
    for run in runs {
        for number in [run.offset, run.bytes, run.stride] {
            body.extend(number.to_le_bytes());
        }
        body.extend(run.count.to_le_bytes());
    }
    for layer in layers {
        body.extend(layer.to_le_bytes());
    }
    body
}

/// How long a layout is on the wire.
pub(super) fn encoded_bytes(runs: usize, layers: usize) -> usize {
    COUNTS_BYTES + runs * RUN_BYTES + layers * LAYER_BYTES
}

/// The pieces of one side, wherever they were described. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Here.
    Pages(Pages),
    /// By a peer.
    Layout(Arc<Layout>),
}

impl Shape {
    pub(super) fn runs(&self) -> &[Run] {
        match self {
            Self::Pages(pages) => pages.layer_runs(),
            Self::Layout(layout) => &layout.runs,
        }
    }

    pub(super) fn layers(&self) -> &[u64] {
        match self {
            Self::Pages(pages) => pages.layer_starts(),
            Self::Layout(layout) => &layout.layers,
        }
    }
}

/// A position in a shape. The same shape must be given to each call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    layer: usize,
    run: usize,
    piece: u32,
    /// Bytes of the piece that are behind.
    within: u64,
}

impl Place {
    /// The place `skip` bytes after the start.
    pub(super) fn at(shape: &Shape, skip: u64) -> Self {
        let runs = shape.runs();
        let layer_bytes: u64 = runs.iter().map(|run| run.bytes * u64::from(run.count)).sum();
        if layer_bytes == 0 {
            return Self::default();
        }
        let mut left = skip % layer_bytes;
        let layer = usize::try_from(skip / layer_bytes).unwrap_or(usize::MAX);
        for (at, run) in runs.iter().enumerate() {
            let bytes = run.bytes * u64::from(run.count);
            if left < bytes {
                // Below `count`, so it fits.
                let piece = (left / run.bytes) as u32;
                return Self { layer, run: at, piece, within: left % run.bytes };
            }
            left -= bytes;
        }
        Self::default()
    }

    /// Where the next byte is, and how many follow it without a gap; `None` after the last.
    #[inline]
    pub(super) fn look(&self, shape: &Shape) -> Option<(u64, u64)> {
        let run = shape.runs().get(self.run)?;
        let start = shape.layers().get(self.layer)?;
        let at = start + run.offset + u64::from(self.piece) * run.stride + self.within;
        Some((at, run.bytes - self.within))
    }

    /// Goes on by `len` bytes.
    pub(super) fn advance(&mut self, shape: &Shape, mut len: u64) {
        while len > 0
            && let Some((_, left)) = self.look(shape)
        {
            let step = len.min(left);
            len -= step;
            if step < left {
                self.within += step;
                return;
            }
            self.step_piece(shape, 1);
        }
    }

    /// Goes on by `count` pieces of the run, from the start of one.
    fn step_piece(&mut self, shape: &Shape, count: u32) {
        let runs = shape.runs();
        self.within = 0;
        self.piece += count;
        if self.piece == runs[self.run].count {
            self.piece = 0;
            self.run += 1;
            if self.run == runs.len() {
                self.run = 0;
                self.layer += 1;
            }
        }
    }

    /// Cuts the runs of the next `len` bytes, or of fewer when they need too many, and goes on by
    /// as many; how many.
    pub(super) fn cut(&mut self, shape: &Shape, len: u64) -> (Vec<Run>, u64) {
        let (mut cut, mut left) = (Vec::new(), len);
        while left > 0
            && cut.len() < RUNS_MAX
            && let Some((offset, here)) = self.look(shape)
        {
            let run = shape.runs()[self.run];
            if self.within > 0 || left < run.bytes {
                let bytes = here.min(left);
                cut.push(Run { offset, bytes, stride: bytes, count: 1 });
                left -= bytes;
                self.advance(shape, bytes);
            } else {
                let whole = u32::try_from(left / run.bytes).unwrap_or(u32::MAX);
                let count = whole.min(run.count - self.piece);
                cut.push(Run { offset, count, ..run });
                left -= run.bytes * u64::from(count);
                self.step_piece(shape, count);
            }
        }
        (cut, len - left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pages::model;

    fn pages() -> impl Strategy<Value = Pages> {
        let run = (0..500u64, 1..40u64, 0..60u64, 1..6u32)
            .prop_map(|(offset, bytes, stride, count)| Run { offset, bytes, stride, count });
        let layers = prop::collection::vec(0..10_000u64, 1..5);
        (prop::collection::vec(run, 1..8), layers)
            .prop_map(|(runs, layers)| Pages::runs(runs).unwrap().layers(layers).unwrap())
    }

    /// The place of every byte, one by one.
    fn bytes(shape: &Shape) -> Vec<u64> {
        model::places(shape.layers(), shape.runs())
    }

    fn walk(shape: &Shape, mut place: Place) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some((at, len)) = place.look(shape) {
            all.extend(at..at + len);
            place.advance(shape, len);
        }
        all
    }

    proptest! {
        #[test]
        fn a_layout_survives_the_wire(pages in pages()) {
            let shape = Shape::Pages(pages.clone());
            let body = encode(shape.runs(), shape.layers());
            prop_assert_eq!(body.len(), encoded_bytes(shape.runs().len(), shape.layers().len()));
            let layout = Layout::decode(&body).unwrap();
            prop_assert_eq!((layout.bytes(), layout.end()), (pages.bytes(), pages.end()));
            prop_assert_eq!(bytes(&Shape::Layout(Arc::new(layout))), bytes(&shape));
        }

        #[test]
        fn nonsense_is_refused_or_walks_within_its_end(
            body in prop::collection::vec(any::<u8>(), 0..200),
            runs in 0..4u32,
            layers in 0..4u32,
        ) {
            let mut body = body;
            if body.len() >= 8 {
                body[..4].copy_from_slice(&runs.to_le_bytes());
                body[4..8].copy_from_slice(&layers.to_le_bytes());
                body.truncate(encoded_bytes(runs as usize, layers as usize).max(8));
            }
            if let Ok(layout) = Layout::decode(&body) {
                let (end, shape) = (layout.end(), Shape::Layout(Arc::new(layout)));
                let mut place = Place::default();
                for _ in 0..50 {
                    let Some((at, len)) = place.look(&shape) else { break };
                    prop_assert!(at.checked_add(len).is_some_and(|it| it <= end));
                    place.advance(&shape, len);
                }
            }
        }

        #[test]
        fn any_byte_can_be_gone_to(pages in pages(), skip in 0..2000u64) {
            let shape = Shape::Pages(pages);
            let all = bytes(&shape);
            let skip = skip % all.len() as u64;
            prop_assert_eq!(&walk(&shape, Place::at(&shape, skip)), &all[skip as usize..]);
        }

        #[test]
        fn cuts_are_the_whole(pages in pages(), lens in prop::collection::vec(1..100u64, 1..20)) {
            let shape = Shape::Pages(pages);
            let (mut place, mut all) = (Place::default(), Vec::new());
            for len in lens.into_iter().cycle() {
                let (runs, took) = place.cut(&shape, len);
                if took == 0 {
                    break;
                }
                prop_assert!(took <= len);
                let layout = Layout::decode(&encode(&runs, &[0])).unwrap();
                prop_assert_eq!(layout.bytes(), took);
                all.extend(bytes(&Shape::Layout(Arc::new(layout))));
            }
            prop_assert_eq!(all, bytes(&shape));
        }
    }
}
