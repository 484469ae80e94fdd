//! Copies between ordinary and shared memory whose races are not undefined behaviour.
//!
//! Threads and processes may touch the shared side at the same time. Relaxed atomic accesses make
//! such a race give torn bytes, which a checksum finds, instead of a broken program.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD_BYTES: usize = size_of::<u64>();

/// Splits `len` bytes at `shared` into a head up to word alignment, whole words, and a tail.
fn split(shared: *const u8, len: usize) -> (usize, usize) {
    let head = shared.align_offset(WORD_BYTES).min(len);
    (head, head + (len - head) / WORD_BYTES * WORD_BYTES)
}

/// Copies `bytes` into shared memory.
///
/// # Safety
/// `shared` is valid for writes of `bytes.len()` bytes.
pub(super) unsafe fn store(shared: *mut u8, bytes: &[u8]) {
    let (head, words_end) = split(shared, bytes.len());
    let byte = |at: usize| {
        // SAFETY: `at < bytes.len()`, in bounds by the caller's contract.
        unsafe { AtomicU8::from_ptr(shared.add(at)) }.store(bytes[at], Relaxed);
    };
    (0..head).for_each(byte);
    let (words, _) = bytes[head..words_end].as_chunks::<WORD_BYTES>();
    // SAFETY: `head` is within the memory and makes the pointer word aligned.
    let base = unsafe { shared.add(head) }.cast::<u64>();
    for (index, word) in words.iter().enumerate() {
        // SAFETY: in bounds and aligned, see `split`.
        unsafe { AtomicU64::from_ptr(base.add(index)) }.store(u64::from_ne_bytes(*word), Relaxed);
    }
    (words_end..bytes.len()).for_each(byte);
}

/// Copies shared memory into `bytes`.
///
/// # Safety
/// `shared` is valid for reads of `bytes.len()` bytes.
pub(super) unsafe fn load(shared: *const u8, bytes: &mut [u8]) {
    let (head, words_end) = split(shared, bytes.len());
    let shared = shared.cast_mut(); // `from_ptr` wants it; only loads follow
    // SAFETY: `at < bytes.len()`, in bounds by the caller's contract.
    let byte = |at: usize| unsafe { AtomicU8::from_ptr(shared.add(at)) }.load(Relaxed);
    for (at, slot) in bytes.iter_mut().enumerate().take(head) {
        *slot = byte(at);
    }
    let (words, _) = bytes[head..words_end].as_chunks_mut::<WORD_BYTES>();
    // SAFETY: `head` is within the memory and makes the pointer word aligned.
    let base = unsafe { shared.add(head) }.cast::<u64>();
    for (index, word) in words.iter_mut().enumerate() {
        // SAFETY: in bounds and aligned, see `split`.
        *word = unsafe { AtomicU64::from_ptr(base.add(index)) }.load(Relaxed).to_ne_bytes();
    }
    for (at, slot) in bytes.iter_mut().enumerate().skip(words_end) {
        *slot = byte(at);
    }
}
