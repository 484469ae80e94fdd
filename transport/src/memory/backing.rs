//! What a memory is made of, and how byte counts are spelled.

use std::fmt;

/// Size of the huge pages asked for.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What the pages of a [`Memory`](super::Memory) are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Where the pages come from.
    pub pages: Pages,
    /// Size of one page, in bytes.
    pub page_bytes: usize,
    /// Why it is less than what was asked for; `None` if it is what was asked for.
    pub shortfall: Option<String>,
}

/// Where pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// The base pages of the machine.
    Base,
    /// Shared memory for which the kernel was asked for transparent huge pages
    /// (`MADV_HUGEPAGE`, `MADV_COLLAPSE`). It gives them where it finds contiguous memory.
    Transparent,
    /// The reserved pool of huge pages (`vm.nr_hugepages`).
    Pool,
    /// Memory of somebody else, of unknown pages.
    Foreign,
}

impl Backing {
    /// Whether the pages are huge, surely ([`Pages::Pool`]) or as far as the kernel finds room
    /// ([`Pages::Transparent`]).
    pub fn is_huge(&self) -> bool {
        matches!(self.pages, Pages::Transparent | Pages::Pool)
    }

    /// What it is once `huge` of `len` bytes were put into transparent huge pages.
    pub(super) fn collapsed(&self, huge: usize, len: usize) -> Self {
        if huge == 0 {
            return self.clone();
        }
        let (huge_size, size) = (Size(huge as u64), Size(len as u64));
        // The rest of the last one is no shortfall.
        let part = (huge + HUGE_PAGE_BYTES <= len)
            .then(|| format!("only {huge_size} of {size} could be had in transparent huge pages"));
        Self { pages: Pages::Transparent, page_bytes: HUGE_PAGE_BYTES, shortfall: part }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = Size(self.page_bytes as u64);
        match self.pages {
            Pages::Base | Pages::Pool => write!(f, "{size} pages")?,
            Pages::Transparent => write!(f, "transparent {size} pages")?,
            Pages::Foreign => write!(f, "foreign memory")?,
        }
        match &self.shortfall {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// A byte count spelled in binary units with at most one decimal, rounded down: `20.1 GiB`.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let power = self.0.max(1).ilog2() / 10;
        let unit = UNITS[power as usize];
        let whole = self.0 >> (10 * power);
        let tenth = (u128::from(self.0 - (whole << (10 * power))) * 10) >> (10 * power);
        match tenth {
            0 => write!(f, "{whole} {unit}"),
            _ => write!(f, "{whole}.{tenth} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelled_in_binary_units() {
        let spelled = |bytes| Size(bytes).to_string();
        assert_eq!(spelled(0), "0 B");
        assert_eq!(spelled(1023), "1023 B");
        assert_eq!(spelled(4096), "4 KiB");
        assert_eq!(spelled(2 << 20), "2 MiB");
        assert_eq!(spelled((20 << 30) + (1 << 30) / 8), "20.1 GiB");
        assert_eq!(spelled(u64::MAX), "15.9 EiB");
    }
}
