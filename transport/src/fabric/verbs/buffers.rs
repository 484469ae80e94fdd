//! Memory for messages: registered places of one length, which are sent from or received into.

use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;

use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};
use super::queue::BUDGET;

/// The longest message, bytes.
pub(super) const PLACE_BYTES: usize = 1 << 10;
/// Places that are made at once: as many as one peer may use.
pub(super) const CHUNK_PLACES: usize = 2 * BUDGET as usize;

/// Places of one kind.
pub(super) struct Buffers {
    chunks: Vec<Chunk>,
    domain: Arc<Domain>,
}

struct Chunk {
    /// Before the memory that it covers.
    mr: Object<sys::ibv_mr>,
    bytes: Box<[UnsafeCell<u8>]>,
}

impl Buffers {
    pub(super) fn new(domain: &Arc<Domain>) -> Self {
        Self { chunks: Vec::new(), domain: Arc::clone(domain) }
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.chunks.len() * CHUNK_PLACES
    }

    /// Makes [`CHUNK_PLACES`] more, and tells which.
    pub(super) fn grow(&mut self) -> io::Result<std::ops::Range<u32>> {
        let first = self.places() as u32;
        let bytes = (0..CHUNK_PLACES * PLACE_BYTES).map(|_| UnsafeCell::new(0));
        let bytes: Box<[UnsafeCell<u8>]> = bytes.collect();
        let (pd, start) = (self.domain.pd.as_ptr(), bytes.as_ptr().cast_mut().cast());
        // SAFETY: the memory outlives the registration: see the order of the fields.
        let mr = unsafe {
            self.domain.verbs.reg_mr(pd, start, bytes.len(), sys::IBV_ACCESS_LOCAL_WRITE)
        };
        let mr = Object::new(&self.domain, mr)?;
        self.chunks.push(Chunk { mr, bytes });
        Ok(first..first + CHUNK_PLACES as u32)
    }

    fn start(&self, place: u32) -> (&Chunk, *mut u8) {
        let (chunk, at) = (place as usize / CHUNK_PLACES, place as usize % CHUNK_PLACES);
        let chunk = &self.chunks[chunk];
        (chunk, chunk.bytes[at * PLACE_BYTES..].as_ptr().cast_mut().cast())
    }

    /// Where a place is, for the hardware.
    pub(super) fn sge(&self, place: u32, length: u32) -> sys::ibv_sge {
        let (chunk, start) = self.start(place);
        // SAFETY: the registration exists.
        sys::ibv_sge { addr: start as u64, length, lkey: unsafe { (*chunk.mr.as_ptr()).lkey } }
    }

    /// Puts bytes into a place that the hardware does not use now.
    pub(super) fn write(&self, place: u32, bytes: &[u8]) {
        assert!(bytes.len() <= PLACE_BYTES, "a message of {} bytes", bytes.len());
        // SAFETY: it fits, and whoever has the place is the only one who uses it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start(place).1, bytes.len()) };
    }

    /// What is in a place that the hardware does not use now.
    pub(super) fn read(&self, place: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.min(PLACE_BYTES)];
        let (from, len) = (self.start(place).1, bytes.len());
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }
}
