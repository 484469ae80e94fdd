//! The pieces of one side.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A list of pieces of one side of a transfer, in the order in which their bytes travel: runs of
/// equally long, equally spaced pieces, repeated for every layer. `P` pages of each of `L` layers
/// take one run for every stretch of pages, and one offset for every layer.
///
/// Offsets count from the start of the slice or window that the list is used with. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Pages {
    inner: Arc<List>,
}

#[derive(PartialEq, Eq)]
struct List {
    runs: Box<[Run]>,
    layers: Box<[u64]>,
    /// Of one layer.
    layer_bytes: u64,
    layer_pieces: u64,
    /// Where the last piece of any layer ends.
    end: u64,
    overlaps: bool,
}

/// Pieces of one length at one distance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    /// Where the first piece starts, bytes.
    pub offset: u64,
    /// How long a piece is, bytes.
    pub bytes: u64,
    /// From the start of a piece to the start of the next, bytes; 0 repeats the same piece.
    pub stride: u64,
    /// How many pieces.
    pub count: u32,
}

impl Run {
    /// Where its last byte ends; `None` beyond what 64 bits hold.
    fn end(&self) -> Option<u64> {
        let last = u64::from(self.count - 1).checked_mul(self.stride)?;
        self.offset.checked_add(last)?.checked_add(self.bytes)
    }

    /// The same bytes in fewer pieces: pieces that touch are one.
    fn joined(self) -> Self {
        if self.stride == self.bytes && self.count > 1 {
            match self.bytes.checked_mul(u64::from(self.count)) {
                Some(bytes) => Self { bytes, stride: bytes, count: 1, ..self },
                None => self,
            }
        } else {
            self
        }
    }
}

impl Pages {
    /// Pieces that one list has at most, all layers together.
    pub const PIECES_MAX: u64 = 1 << 22;
    /// Runs that one list has at most.
    pub const RUNS_MAX: usize = 1 << 18;
    /// Layers that one list has at most.
    pub const LAYERS_MAX: usize = 1 << 16;

    /// `count` pieces of `bytes` bytes, each `stride` after the one before.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn strided(offset: u64, bytes: u64, stride: u64, count: u32) -> Result<Self, PagesError> {
        Self::runs([Run { offset, bytes, stride, count }])
    }

    /// The pages of a page table: page `i` starts at `i × bytes`. Neighbours become one run.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn table(bytes: u64, indices: impl IntoIterator<Item = u64>) -> Result<Self, PagesError> {
        let mut runs = Vec::new();
        for index in indices {
            let offset = index.checked_mul(bytes).ok_or(PagesError::Beyond { offset: index })?;
            push(&mut runs, Run { offset, bytes, stride: bytes, count: 1 })?;
        }
        Self::of(runs)
    }

    /// Any pieces, of any lengths: gathers small sources, or scatters to small destinations.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Result<Self, PagesError> {
        let mut runs = Vec::new();
        for Range { start, end } in ranges {
            let bytes = end.checked_sub(start).ok_or(PagesError::Beyond { offset: start })?;
            push(&mut runs, Run { offset: start, bytes, stride: bytes, count: 1 })?;
        }
        Self::of(runs)
    }

    /// Runs as they are.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn runs(runs: impl IntoIterator<Item = Run>) -> Result<Self, PagesError> {
        let mut list = Vec::new();
        for run in runs {
            push(&mut list, run)?;
        }
        Self::of(list)
    }

    /// The same pieces once for every layer, each time counted from where the layer starts. Layers
    /// already described are replaced.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn layers(&self, starts: impl IntoIterator<Item = u64>) -> Result<Self, PagesError> {
        let layers: Vec<u64> = starts.into_iter().take(Self::LAYERS_MAX + 1).collect();
        if layers.len() > Self::LAYERS_MAX {
            return Err(PagesError::TooMany { what: "layers", limit: Self::LAYERS_MAX as u64 });
        }
        List::new(self.inner.runs.clone(), layers.into()).map(Self::from)
    }

    fn of(runs: Vec<Run>) -> Result<Self, PagesError> {
        List::new(runs.into(), [0].into()).map(Self::from)
    }

    /// The bytes of all its pieces together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.layer_bytes * self.inner.layers.len() as u64
    }

    /// How many pieces it has, neighbours counted as one.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.inner.layer_pieces * self.inner.layers.len() as u64
    }

    /// Where the furthest piece ends: the shortest slice or window that holds them all.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.inner.end
    }

    /// Whether some byte belongs to two pieces. Such a list can be a source, never a destination.
    #[must_use]
    pub fn overlaps(&self) -> bool {
        self.inner.overlaps
    }

    /// The runs of one layer.
    #[must_use]
    pub fn layer_runs(&self) -> &[Run] {
        &self.inner.runs
    }

    /// Where the layers start.
    #[must_use]
    pub fn layer_starts(&self) -> &[u64] {
        &self.inner.layers
    }
}

impl From<List> for Pages {
    fn from(list: List) -> Self {
        Self { inner: Arc::new(list) }
    }
}

/// Adds a run, joined with the one before where they are one stretch or one progression.
fn push(runs: &mut Vec<Run>, run: Run) -> Result<(), PagesError> {
    if run.count == 0 || run.bytes == 0 {
        return Ok(());
    }
    if run.end().is_none() {
        return Err(PagesError::Beyond { offset: run.offset });
    }
    let run = run.joined();
    if run.count == 1
        && let Some(last) = runs.last_mut()
    {
        if last.count == 1 && last.offset + last.bytes == run.offset {
            last.bytes += run.bytes;
            last.stride = last.bytes;
            return Ok(());
        }
        let distance = run.offset.checked_sub(last.offset);
        if last.bytes == run.bytes
            && let Some(distance) = distance
            && (last.count == 1 || Some(distance) == last.stride.checked_mul(u64::from(last.count)))
            && last.count < u32::MAX
        {
            if last.count == 1 {
                last.stride = distance;
            }
            last.count += 1;
            return Ok(());
        }
    }
    if runs.len() == Pages::RUNS_MAX {
        return Err(PagesError::TooMany { what: "runs", limit: Pages::RUNS_MAX as u64 });
    }
    runs.push(run);
    Ok(())
}

impl List {
    fn new(runs: Box<[Run]>, layers: Box<[u64]>) -> Result<Self, PagesError> {
        let layer_pieces = runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        if layer_pieces.saturating_mul(layers.len() as u64) > Pages::PIECES_MAX {
            return Err(PagesError::TooMany { what: "pieces", limit: Pages::PIECES_MAX });
        }
        let furthest = runs.iter().filter_map(Run::end).max().unwrap_or(0);
        let mut end = 0;
        if furthest > 0 {
            for &start in &layers {
                let beyond = PagesError::Beyond { offset: start };
                end = end.max(start.checked_add(furthest).ok_or(beyond)?);
            }
        }
        let layer_bytes = runs
            .iter()
            .try_fold(0u64, |sum, run| {
                run.bytes.checked_mul(u64::from(run.count))?.checked_add(sum)
            })
            .filter(|bytes| bytes.checked_mul(layers.len() as u64).is_some())
            .ok_or(PagesError::Beyond { offset: u64::MAX })?;
        let overlaps = overlap(&runs, &layers);
        Ok(Self { runs, layers, layer_bytes, layer_pieces, end, overlaps })
    }
}

/// Whether any two pieces share a byte. Progressions that keep clear of each other as wholes are
/// told apart by their ends; only where wholes cross, every piece is looked at.
fn overlap(runs: &[Run], layers: &[u64]) -> bool {
    if layers.is_empty() {
        return false;
    }
    if runs.iter().any(|run| run.count > 1 && run.stride < run.bytes) {
        return true;
    }
    let disjoint = |spans: &mut Vec<(u64, u64)>| {
        spans.sort_unstable();
        spans.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    };
    let whole = |run: &Run| (run.offset, run.end().expect("checked when it was added"));
    // One layer as a whole against the others, then run against run within it.
    let mut spans: Vec<_> = runs.iter().map(whole).collect();
    let layer = spans.iter().fold((u64::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)));
    let mut wholes: Vec<_> =
        layers.iter().map(|start| (start + layer.0.min(layer.1), start + layer.1)).collect();
    let apart = disjoint(&mut wholes);
    if apart && disjoint(&mut spans) {
        return false;
    }
    let mut pieces = Vec::new();
    for &start in if apart { &layers[..1] } else { layers } {
        for run in runs {
            for at in 0..u64::from(run.count) {
                let from = start + run.offset + at * run.stride;
                pieces.push((from, from + run.bytes));
            }
        }
    }
    !disjoint(&mut pieces)
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let List { runs, layers, .. } = &*self.inner;
        write!(f, "Pages({} runs × {} layers, {} bytes)", runs.len(), layers.len(), self.bytes())
    }
}

/// A list of pages that cannot be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PagesError {
    /// A piece ends beyond what 64 bits address, or before it starts.
    #[error("the piece or layer at offset {offset} ends beyond 2^64 or before it starts")]
    Beyond {
        /// Where it starts.
        offset: u64,
    },
    /// More than one list can hold.
    #[error("more than {limit} {what} in one list of pages; use several transfers")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
}
