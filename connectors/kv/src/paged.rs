//! Where the bytes of a block are in the KV cache of an engine.
//!
//! Nothing is known here of models or attention: a layer is a tensor whose first dimension counts
//! pages, and the bytes of a page are found by its strides alone. Heads before tokens or after them,
//! keys and values together or apart, latent attention, blocks outermost or layers outermost: all are
//! shapes and strides.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tranship_transport::memory::Spans;

/// A tensor of pages: dimension 0 counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// First byte of page 0.
    pub base: *mut u8,
    /// Elements along each dimension.
    pub shape: Vec<usize>,
    /// Between neighbours of each dimension, elements.
    pub strides: Vec<isize>,
    /// Bytes of an element.
    pub item_bytes: usize,
}

/// A layer's pages: the same runs in each.
#[derive(Debug, Clone)]
struct Layer {
    base: *mut u8,
    stride: usize,
    /// Runs of bytes of a page, by where they begin in it.
    runs: Vec<usize>,
    run_bytes: usize,
    bytes: usize,
}

/// The paged KV cache of an engine. A block is the bytes of one page of every layer, in the order of the
/// layers, and of a layer in the order of its memory.
#[derive(Clone)]
pub struct Paged {
    layers: Arc<[Layer]>,
    pages: usize,
    bytes: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the addresses are only used through `Spans`, which whoever built the `Paged` vouched for.
unsafe impl Send for Paged {}
// SAFETY: as for `Send`.
unsafe impl Sync for Paged {}

/// A KV cache whose pages cannot be found, or a page that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PagedError {
    /// No layers.
    #[error("a paged KV cache needs at least one tensor; none was given")]
    Empty,
    /// A tensor without pages.
    #[error(
        "tensor {layer} has no bytes in a page (shape {shape:?}); give tensors whose first dimension counts pages"
    )]
    NoPages {
        /// Which.
        layer: usize,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Layers of different lengths.
    #[error(
        "tensor {layer} has {pages} pages, tensor 0 has {expected}; all layers of a cache have as many"
    )]
    Uneven {
        /// Which.
        layer: usize,
        /// Its pages.
        pages: usize,
        /// Those of the first.
        expected: usize,
    },
    /// Strides that go backwards or let elements overlap.
    #[error(
        "tensor {layer} has strides {strides:?} for shape {shape:?}, which overlap or go backwards; give a view without expand or flip"
    )]
    Strides {
        /// Which.
        layer: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// Its strides, elements.
        strides: Vec<isize>,
    },
    /// A page that is not there.
    #[error("page {page} is not among the {pages} pages of the cache")]
    Page {
        /// Which.
        page: u64,
        /// How many there are.
        pages: usize,
    },
}

impl Layer {
    fn new(layer: usize, tensor: &Tensor) -> Result<Self, PagedError> {
        let Tensor { base, shape, strides, item_bytes } = tensor;
        let empty = || PagedError::NoPages { layer, shape: shape.clone() };
        let wrong = || {
            let (shape, strides) = (shape.clone(), strides.clone());
            PagedError::Strides { layer, shape, strides }
        };
        if shape.is_empty() || shape.contains(&0) || *item_bytes == 0 {
            return Err(empty());
        }
        if shape.len() != strides.len() {
            return Err(wrong());
        }
        // What is inside a page, the widest stride first.
        let mut inner = Vec::new();
        for (len, stride) in shape.iter().zip(strides).skip(1).filter(|(len, _)| **len > 1) {
            let stride = usize::try_from(*stride).map_err(|_| wrong())?;
            inner.push((*len, stride.checked_mul(*item_bytes).ok_or_else(wrong)?));
        }
        inner.sort_by_key(|(_, stride)| std::cmp::Reverse(*stride));
        // From the inside out: what touches is one run, what does not is another.
        let (mut run_bytes, mut extent, mut runs) = (*item_bytes, *item_bytes, vec![0]);
        for (len, stride) in inner.into_iter().rev() {
            if stride < extent {
                return Err(wrong());
            }
            if runs.len() == 1 && stride == run_bytes {
                run_bytes *= len;
            } else {
                let starts = (0..len).flat_map(|i| runs.iter().map(move |run| i * stride + run));
                runs = starts.collect();
            }
            extent += (len - 1).checked_mul(stride).ok_or_else(wrong)?;
        }
        let stride = match (shape[0], usize::try_from(strides[0])) {
            (1, _) => extent,
            (_, Ok(stride)) => stride.checked_mul(*item_bytes).ok_or_else(wrong)?,
            (_, Err(_)) => return Err(wrong()),
        };
        // Pages may interleave with those of other layers, but not overlap: with a stride shorter than
        // their extent, each run of one page must end before that of the next begins.
        if stride < run_bytes {
            return Err(wrong());
        }
        let bytes = runs.len() * run_bytes;
        Ok(Self { base: *base, stride, runs, run_bytes, bytes })
    }
}

impl Paged {
    /// The cache made of these layers; `keep` keeps their memory valid.
    ///
    /// # Errors
    /// When the pages cannot be told from the shapes and strides.
    ///
    /// # Safety
    /// All elements of all tensors are valid for reads and writes from any thread until `keep` is
    /// dropped, and nobody holds Rust references to them while blocks are moved.
    pub unsafe fn new(
        tensors: &[Tensor],
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, PagedError> {
        let first = tensors.first().ok_or(PagedError::Empty)?;
        let expected = first.shape.first().copied().unwrap_or(0);
        let mut layers = Vec::with_capacity(tensors.len());
        for (layer, tensor) in tensors.iter().enumerate() {
            layers.push(Layer::new(layer, tensor)?);
            let pages = tensor.shape[0];
            if pages != expected {
                return Err(PagedError::Uneven { layer, pages, expected });
            }
        }
        let bytes = layers.iter().map(|layer| layer.bytes).sum();
        Ok(Self { layers: layers.into(), pages: expected, bytes, keep })
    }

    /// How many pages each layer has.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// How many layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.bytes
    }

    /// What keeps the memory valid.
    #[must_use]
    pub fn keep(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.keep
    }

    /// The bytes of a block.
    ///
    /// # Errors
    /// When there is no such page.
    pub fn block(&self, page: u64) -> Result<Spans, PagedError> {
        let mut spans = Spans::new();
        for layer in &*self.layers {
            self.add(layer, page, &mut spans)?;
        }
        Ok(spans)
    }

    /// The bytes of one layer of a block, and where they begin in it.
    ///
    /// # Errors
    /// When there is no such page.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn part(&self, page: u64, layer: usize) -> Result<(u64, Spans), PagedError> {
        let mut spans = Spans::new();
        self.add(&self.layers[layer], page, &mut spans)?;
        let before: usize = self.layers[..layer].iter().map(|layer| layer.bytes).sum();
        Ok((before as u64, spans))
    }

    fn add(&self, layer: &Layer, page: u64, spans: &mut Spans) -> Result<(), PagedError> {
        let at = usize::try_from(page).ok().filter(|page| *page < self.pages);
        let at = at.ok_or(PagedError::Page { page, pages: self.pages })?;
        let start = layer.base.wrapping_add(at * layer.stride);
        for run in &layer.runs {
            // SAFETY: the run is inside the tensor, whose memory `new`'s caller vouched for.
            unsafe { spans.push(start.wrapping_add(*run), layer.run_bytes) };
        }
        Ok(())
    }
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layers, pages, bytes) = (self.layers.len(), self.pages, self.bytes);
        write!(f, "Paged({layers} layers of {pages} pages, blocks of {bytes} bytes)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tranship_transport::HostMemory;

    use super::*;

    fn paged(tensors: &[Tensor]) -> Result<Paged, PagedError> {
        // SAFETY: the tests keep the memory for as long as they move blocks.
        unsafe { Paged::new(tensors, Arc::new(())) }
    }

    /// Dense strides for `shape` whose dimensions lie in memory in `order`, outermost first.
    fn strides(shape: &[usize], order: &[usize]) -> Vec<isize> {
        let mut strides = vec![0; shape.len()];
        let mut next = 1;
        for dim in order.iter().rev() {
            strides[*dim] = next;
            next *= shape[*dim] as isize;
        }
        strides
    }

    proptest! {
        /// Whatever the order of the dimensions in memory, a block has exactly the bytes of its page.
        #[test]
        fn a_block_has_the_bytes_of_its_page(
            shape in prop::collection::vec(1..5_usize, 1..5),
            order in any::<u64>(),
            item_bytes in 1..5_usize,
        ) {
            let mut dims: Vec<usize> = (0..shape.len()).collect();
            for i in (1..dims.len()).rev() {
                dims.swap(i, (order >> (i * 8)) as usize % (i + 1));
            }
            let strides = strides(&shape, &dims);
            let total = shape.iter().product::<usize>() * item_bytes;
            let mut bytes: Vec<u8> = (0..total).map(|i| i as u8).collect();
            let base = bytes.as_mut_ptr();
            let tensor = Tensor { base, shape: shape.clone(), strides: strides.clone(), item_bytes };
            let paged = paged(&[tensor]).unwrap();
            prop_assert_eq!(paged.pages(), shape[0]);
            prop_assert_eq!(paged.block_bytes(), total / shape[0]);
            for page in 0..shape[0] {
                // By definition: all elements with this first index, in the order of memory.
                let mut expected: Vec<usize> = vec![page * strides[0] as usize];
                for (len, stride) in shape.iter().zip(&strides).skip(1) {
                    let stride = *stride as usize;
                    expected = expected.iter().flat_map(|at| (0..*len).map(move |i| at + i * stride)).collect();
                }
                expected.sort_unstable();
                let expected: Vec<u8> = expected
                    .iter()
                    .flat_map(|at| bytes[at * item_bytes..(at + 1) * item_bytes].to_vec())
                    .collect();
                let memory = HostMemory::new(total).build().unwrap();
                memory.gather(0, &paged.block(page as u64).unwrap()).unwrap();
                let mut found = vec![0; expected.len()];
                memory.read_at(0, &mut found).unwrap();
                prop_assert_eq!(found, expected);
            }
            prop_assert!(paged.block(shape[0] as u64).is_err());
        }
    }

    #[test]
    fn layers_follow_each_other_and_blocks_outermost_are_one_piece() {
        let mut bytes = vec![0_u8; 4 * 3 * 64];
        let base = bytes.as_mut_ptr();
        // Three layers interleaved: [page][layer][64].
        let layer = |l: usize| Tensor {
            base: base.wrapping_add(l * 64),
            shape: vec![4, 64],
            strides: vec![192, 1],
            item_bytes: 1,
        };
        let layers = [layer(0), layer(1), layer(2)];
        let paged = paged(&layers).unwrap();
        assert_eq!(paged.block(2).unwrap().pieces(), 1);
        assert_eq!(paged.block_bytes(), 192);
        let (at, spans) = paged.part(2, 1).unwrap();
        assert_eq!((at, spans.len()), (64, 64));
    }

    #[test]
    fn what_cannot_be_paged_is_refused() {
        let base = std::ptr::NonNull::<u8>::dangling().as_ptr();
        let tensor = |shape: &[usize], strides: &[isize]| Tensor {
            base,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            item_bytes: 2,
        };
        assert_eq!(paged(&[]).unwrap_err(), PagedError::Empty);
        let refused = |shape: &[usize], strides: &[isize]| {
            paged(&[tensor(shape, strides)]).unwrap_err().to_string()
        };
        assert!(refused(&[], &[]).contains("no bytes in a page"));
        assert!(refused(&[4, 0], &[1, 1]).contains("no bytes in a page"));
        assert!(refused(&[4, 8], &[8]).contains("strides"), "one stride short");
        assert!(refused(&[4, 8], &[8, -1]).contains("strides"), "backwards");
        assert!(refused(&[4, 8], &[0, 1]).contains("strides"), "expanded pages");
        assert!(refused(&[4, 8, 2], &[16, 0, 1]).contains("strides"), "expanded inside");
        assert!(refused(&[4, 8, 2], &[16, 1, 1]).contains("strides"), "overlapping");
        let uneven = paged(&[tensor(&[4, 8], &[8, 1]), tensor(&[5, 8], &[8, 1])]).unwrap_err();
        assert_eq!(uneven, PagedError::Uneven { layer: 1, pages: 5, expected: 4 });
    }
}
