//! What is known of a block when it is used, in one number.
//!
//! A class is a point in a grid of four factors: what kind of use it was, how much the request added,
//! how long the gaps before it were, and where in the request the block stood. All of them are known
//! when a request arrives.

/// What kind of use a block had last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a chain that begins, or leaves a prefix that many share.
    Fresh,
    /// Of a chain that leaves another one where nobody did before.
    Branch,
    /// Of a chain that goes on, for the first time.
    Turn1,
    /// For the second time.
    Turn2,
    /// For the third or fourth.
    Turn4,
    /// Up to the eighth.
    Turn8,
    /// Up to the sixteenth.
    Turn16,
    /// More often.
    TurnMore,
    /// Of a chain whose own session has gone another way since.
    Left,
    /// Many chains go on from it in different ways.
    Shared,
    /// New, and the last of its request: often no full block.
    Tip,
}

impl Kind {
    pub(super) const COUNT: usize = 11;
    const ALL: [Self; Self::COUNT] = [
        Self::Fresh,
        Self::Branch,
        Self::Turn1,
        Self::Turn2,
        Self::Turn4,
        Self::Turn8,
        Self::Turn16,
        Self::TurnMore,
        Self::Left,
        Self::Shared,
        Self::Tip,
    ];

    /// A chain that has gone on so many times.
    pub(super) fn turn(turns: u16) -> Self {
        match turns {
            0 | 1 => Self::Turn1,
            2 => Self::Turn2,
            3..=4 => Self::Turn4,
            5..=8 => Self::Turn8,
            9..=16 => Self::Turn16,
            _ => Self::TurnMore,
        }
    }

    /// Kinds whose other factors mean the same.
    pub(super) const fn family(self) -> usize {
        match self {
            Self::Fresh => 0,
            Self::Branch => 1,
            Self::Left => 2,
            Self::Shared => 3,
            Self::Tip => 4,
            _ => 5,
        }
    }

    pub(super) const FAMILIES: usize = 6;
}

/// Levels of the factors after the kind.
pub(super) const LEVELS: [usize; 3] = [6, 12, 3];
/// Most levels of any of them.
pub(super) const LEVELS_MAX: usize = 12;
/// Classes there can be.
pub(super) const CLASSES: usize = Kind::COUNT * LEVELS[0] * LEVELS[1] * LEVELS[2];

/// A point of the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class(u16);

impl Class {
    /// Levels above the highest count as that.
    pub(super) fn new(kind: Kind, size: usize, gap: usize, part: usize) -> Self {
        let clip = |level: usize, factor: usize| level.min(LEVELS[factor] - 1);
        let mut code = kind as usize;
        for (level, factor) in [size, gap, part].into_iter().zip(0..) {
            code = code * LEVELS[factor] + clip(level, factor);
        }
        Self(code as u16)
    }

    pub(super) const fn code(self) -> usize {
        self.0 as usize
    }

    /// The class with this code; any number names one.
    pub(super) const fn from_code(code: usize) -> Self {
        Self((code % CLASSES) as u16)
    }

    pub(super) const fn kind(self) -> Kind {
        Kind::ALL[self.code() / (LEVELS[0] * LEVELS[1] * LEVELS[2])]
    }

    /// Levels of size, gap and part.
    pub(super) const fn levels(self) -> [usize; 3] {
        let code = self.code();
        [code / (LEVELS[1] * LEVELS[2]) % LEVELS[0], code / LEVELS[2] % LEVELS[1], code % LEVELS[2]]
    }

    /// Kind and gap.
    pub(super) const fn group(self) -> usize {
        self.code() / (LEVELS[0] * LEVELS[1] * LEVELS[2]) * LEVELS[1] + self.levels()[1]
    }

    /// The class that stands for all of its kind, where memory for more is used up.
    pub(super) fn coarse(self) -> Self {
        Self::new(self.kind(), 0, 0, 0)
    }
}

/// Number of bits of `n`: 0, 1, 2, 2, 3, 3, 3, 3, 4 …
pub(super) const fn bits(n: usize) -> usize {
    (usize::BITS - n.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_tells_its_factors() {
        for kind in Kind::ALL {
            let class = Class::new(kind, 5, 99, 1);
            assert_eq!(class.kind(), kind);
            assert_eq!(class.levels(), [5, 11, 1]);
            assert_eq!(Class::from_code(class.code()), class);
            assert!(class.code() < CLASSES);
        }
    }
}
