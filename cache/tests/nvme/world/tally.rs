//! How often things came to pass.

/// How often things came to pass, over all schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    pub(crate) durable: u64,
    pub(crate) loaded: u64,
    pub(crate) parts: u64,
    pub(crate) gone: u64,
    pub(crate) late: u64,
    pub(crate) corrupt: u64,
    pub(crate) failed: u64,
    pub(crate) no_room: u64,
    pub(crate) worn: u64,
    pub(crate) refused: u64,
    pub(crate) evicted: u64,
    pub(crate) moved: u64,
    pub(crate) crashes: u64,
    pub(crate) closes: u64,
    pub(crate) syncs: u64,
    pub(crate) read_only: u64,
    pub(crate) recovered: u64,
    pub(crate) hung: u64,
}

impl Tally {
    pub(crate) fn counts(&self) -> [u64; 19] {
        [
            self.stored,
            self.durable,
            self.loaded,
            self.parts,
            self.gone,
            self.late,
            self.corrupt,
            self.failed,
            self.no_room,
            self.worn,
            self.refused,
            self.evicted,
            self.moved,
            self.crashes,
            self.closes,
            self.syncs,
            self.read_only,
            self.recovered,
            self.hung,
        ]
    }
}
