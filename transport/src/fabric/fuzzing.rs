//! What a fuzzer gave, as strangers to a fabric use it up.

/// Bytes that are taken from the front.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// As many as the first one says, at most `max`.
    pub(super) fn take(&mut self, max: usize) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or(0)).min(max).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some
    }

    pub(super) fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte().unwrap_or(0)))
    }
}
