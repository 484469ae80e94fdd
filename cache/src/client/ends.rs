//! Memory of the caller's that blocks come from and go to: one piece, or several.

use tranship_transport::Memory;
use tranship_transport::memory::{MemoryError, Spans};

use super::staging::Piece;

/// Where the bytes of a block that is stored come from.
pub(super) trait Source: Copy {
    /// All bytes.
    fn len(self) -> usize;
    /// Copies them to `at`; their checksum.
    fn copy_to(self, memory: &Memory, at: usize) -> Result<u64, MemoryError>;
    /// Copies them to `at` of a piece of staging memory; their checksum.
    fn copy_to_piece(self, piece: &Piece, at: usize) -> u64;
}

impl Source for &[u8] {
    fn len(self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_to(self, memory: &Memory, at: usize) -> Result<u64, MemoryError> {
        memory.copy_in(at, self)
    }

    fn copy_to_piece(self, piece: &Piece, at: usize) -> u64 {
        piece.copy_in(at, self)
    }
}

impl Source for &Spans {
    fn len(self) -> usize {
        Spans::len(self)
    }

    fn copy_to(self, memory: &Memory, at: usize) -> Result<u64, MemoryError> {
        memory.gather(at, self)
    }

    fn copy_to_piece(self, piece: &Piece, at: usize) -> u64 {
        piece.gather(at, self)
    }
}

/// Where the bytes of a block that is loaded go to.
pub(super) trait Sink {
    /// All bytes.
    fn len(&self) -> usize;
    /// Copies as many from `at`; the checksum of what was copied.
    fn copy_from(&mut self, memory: &Memory, at: usize) -> Result<u64, MemoryError>;
    /// Copies as many from staging memory; their checksum.
    fn copy_piece(&mut self, piece: &Piece) -> u64;
}

impl Sink for &mut [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_from(&mut self, memory: &Memory, at: usize) -> Result<u64, MemoryError> {
        memory.copy_out(at, self)
    }

    fn copy_piece(&mut self, piece: &Piece) -> u64 {
        piece.copy_out(self)
    }
}

impl Sink for &Spans {
    fn len(&self) -> usize {
        Spans::len(self)
    }

    fn copy_from(&mut self, memory: &Memory, at: usize) -> Result<u64, MemoryError> {
        memory.scatter(at, self)
    }

    fn copy_piece(&mut self, piece: &Piece) -> u64 {
        piece.scatter(self)
    }
}
