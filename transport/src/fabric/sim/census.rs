//! What a network holds, to find what was left behind.

use super::key::Granted;
use super::state::State;

/// How much of everything a network holds. After all engines ended and nothing is to come any more,
/// all of it is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Operations that have not ended.
    pub operations: usize,
    /// Things that are to happen.
    pub to_come: usize,
    /// Things that wait for a hung host.
    pub held: usize,
    /// Regions that are registered.
    pub regions: usize,
    /// Windows that are granted.
    pub windows: usize,
    /// Packets that are being put into memory.
    pub landing: u32,
    /// Messages under way.
    pub messages: usize,
}

impl State {
    pub(super) fn census(&self) -> Census {
        let windows = || self.ports.iter().flat_map(|port| port.windows.iter());
        let ends = self.links.iter().flat_map(|link| &link.ends);
        Census {
            operations: self.operations.len(),
            to_come: self.queue.len(),
            held: self.ports.iter().map(|port| port.held.len()).sum(),
            regions: self.ports.iter().map(|port| port.regions.iter().count()).sum(),
            windows: windows().filter(|granted| granted.is_live()).count(),
            landing: windows().map(Granted::landing).sum(),
            messages: ends.map(|end| end.messages.len()).sum(),
        }
    }
}
