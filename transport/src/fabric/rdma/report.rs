//! What people are told of rails and paths, and how paths are measured for them.

use super::device::Post;
use super::fabric::Rdma;
use super::hub::Hub;
use super::link::Link;
use super::op::{Batch, Load};
use super::path::{self, Probe, State};
use crate::fabric::PeerId;
use crate::lane::Lane;
use crate::rail::{Path, PathState, Rail};

impl Rdma {
    pub(super) fn rails_told(&self) -> Vec<Rail> {
        let told = |rail: &super::hub::Rail| Rail {
            fabric: self.hub.settings.kind,
            name: rail.device.name().to_owned(),
            facts: rail.device.facts(),
            down: rail.down.clone(),
        };
        self.hub.rails.iter().map(told).collect()
    }

    pub(super) fn paths_told(&self, peer: PeerId) -> Vec<Path> {
        let Some(link) = self.links.get(peer) else { return Vec::new() };
        if link.paths.is_empty() && link.pending.is_some() {
            // How many there will be is not known before the peer has answered.
            let joining = |rail: &super::hub::Rail| Path {
                rail: rail.device.name().to_owned(),
                facts: Vec::new(),
                state: PathState::Joining,
                round_trip: None,
                bytes_per_second: None,
                messages: 0,
            };
            return self.hub.rails.iter().map(joining).collect();
        }
        link.paths.iter().map(|path| self.path_told(path)).collect()
    }

    fn path_told(&self, path: &path::Path) -> Path {
        let device = &self.hub.rails[usize::from(path.rail)].device;
        let state = match path.state {
            State::Joining { .. } | State::Proving { .. } => PathState::Joining,
            State::Up(_) => PathState::Up,
            State::Down { .. } | State::Shutting => PathState::Down(path.why.clone()),
        };
        Path {
            rail: device.name().to_owned(),
            facts: path.up().map_or_else(Vec::new, |channel| device.channel_facts(channel)),
            state,
            round_trip: path.round_trip,
            bytes_per_second: path.rate.learnt(),
            messages: path.messages,
        }
    }

    /// Measures each path, as soon as it is up and has room.
    pub(super) fn probe_paths(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        for path in &mut link.paths {
            path.round_trip = None;
            if path.probe == Probe::None {
                path.probe = Probe::Due;
            }
        }
        link.probes_due = true;
        self.hub.now = self.clock.now();
        link.send_probes(&mut self.hub);
        self.hub.eager(link);
    }
}

impl Link {
    /// Sends something over each path that is to be measured and has room.
    pub(super) fn send_probes(&mut self, hub: &mut Hub) {
        if !std::mem::take(&mut self.probes_due) {
            return;
        }
        for (number, path) in self.paths.iter_mut().enumerate() {
            if path.probe != Probe::Due {
                continue;
            }
            let (rail, lane) = (usize::from(path.rail), Lane::Latency);
            let Some(channel) = path.up() else { continue };
            if hub.rails[rail].device.room(channel, lane).pieces == 0 {
                self.probes_due = true;
                continue;
            }
            path.probe = Probe::Flying;
            let token = hub.launch(self.id, Load::Probe, number as u8, lane, Batch::default());
            let post = Post { channel, lane, token, ..Post::NOTHING };
            hub.rails[rail].device.write(&post, None);
        }
    }
}
