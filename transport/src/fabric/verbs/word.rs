//! Words that peers write into: how many of our immediates each of them has taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tranship_verbs_sys as sys;

use super::domain::{Domain, Object};

/// Words there are: one for each lane of each peer.
const WORDS: usize = 2048;

/// All words of a rail, one registration.
pub(super) struct Words {
    /// Before the memory that it covers.
    mr: Object<sys::ibv_mr>,
    words: Box<[AtomicU64]>,
    free: Vec<u16>,
}

impl Words {
    pub(super) fn new(domain: &Arc<Domain>) -> std::io::Result<Self> {
        let words: Box<[AtomicU64]> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let access = sys::IBV_ACCESS_LOCAL_WRITE | sys::IBV_ACCESS_REMOTE_WRITE;
        let start = words.as_ptr().cast_mut().cast();
        // SAFETY: the memory outlives the registration: see the order of the fields.
        let mr =
            unsafe { domain.verbs.reg_mr(domain.pd.as_ptr(), start, size_of_val(&*words), access) };
        let mr = Object::new(domain, mr)?;
        Ok(Self { mr, words, free: (0..WORDS as u16).rev().collect() })
    }

    /// One that nobody uses, set to zero.
    pub(super) fn take(&mut self) -> Option<u16> {
        let word = self.free.pop()?;
        self.words[usize::from(word)].store(0, Ordering::Relaxed);
        Some(word)
    }

    /// It is used no more: the queue pair that wrote it is gone.
    pub(super) fn give_back(&mut self, word: u16) {
        self.free.push(word);
    }

    /// What the peer wrote.
    pub(super) fn read(&self, word: u16) -> u64 {
        self.words[usize::from(word)].load(Ordering::Acquire)
    }

    /// Where the peer writes: address and key.
    pub(super) fn place(&self, word: u16) -> (u64, u32) {
        let address = &raw const self.words[usize::from(word)];
        // SAFETY: the registration exists.
        (address as u64, unsafe { (*self.mr.as_ptr()).rkey })
    }
}
