//! What a port sends when: one line, two lanes.

use std::time::Duration;

use crate::lane::Lane;
use crate::time::Time;

/// The line of a port. A packet of the latency lane waits for those of its own lane and for the one
/// bulk packet that is being sent, never for the bulk queue.
#[derive(Default)]
pub(super) struct Line {
    /// Until when each lane is busy.
    until: [Time; 2],
    /// How long the largest packet of the bulk queue takes.
    bulk_packet: Duration,
}

impl Line {
    /// When something posted now begins to leave.
    pub(super) fn starts(&self, lane: Lane, now: Time) -> Time {
        let bulk = self.until[Lane::Bulk.index()].max(now);
        match lane {
            Lane::Bulk => bulk,
            Lane::Latency => {
                let on_the_wire = bulk.since(now).min(self.bulk_packet);
                self.until[Lane::Latency.index()].max(now + on_the_wire)
            }
        }
    }

    /// Packets that take `packet` each are sent from `from` on, `packets` of them. What is in bulk
    /// and not posted yet waits for them, whatever their lane.
    pub(super) fn take(&mut self, lane: Lane, from: Time, packet: Duration, packets: u32) {
        let busy = packet * packets;
        let queue = &mut self.until[Lane::Bulk.index()];
        match lane {
            Lane::Bulk => {
                // Behind others, theirs may still be on the wire.
                let behind = *queue == from;
                self.bulk_packet = if behind { self.bulk_packet.max(packet) } else { packet };
                *queue = from + busy;
            }
            Lane::Latency => {
                *queue = (*queue).max(from) + busy;
                self.until[Lane::Latency.index()] = from + busy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_waits_for_one_packet_and_bulk_for_all() {
        let (us, at) = (Duration::from_micros, Time::from_nanos);
        let mut line = Line::default();
        assert_eq!(line.starts(Lane::Bulk, at(0)), at(0));
        line.take(Lane::Bulk, at(0), us(10), 100);
        assert_eq!(line.starts(Lane::Bulk, at(500)), at(1_000_000));
        assert_eq!(line.starts(Lane::Latency, at(500)), at(10_500));
        line.take(Lane::Latency, at(10_500), us(1), 1);
        assert_eq!(line.starts(Lane::Latency, at(500)), at(11_500), "its own lane is a queue");
        assert_eq!(line.starts(Lane::Bulk, at(500)), at(1_001_000), "the line is shared");
        assert_eq!(line.starts(Lane::Latency, at(2_000_000)), at(2_000_000), "an idle line");
        line.take(Lane::Bulk, at(2_000_000), us(1), 1);
        assert_eq!(line.starts(Lane::Latency, at(2_000_000)), at(2_001_000));
    }
}
