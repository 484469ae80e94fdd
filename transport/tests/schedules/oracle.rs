//! What must hold, whenever somebody looks.

use std::time::Duration;

use tranship_transport::{Incoming, Outcome, Reason};

use crate::world::{Carried, Count, World};

/// By how much a deadline may be overrun: one tick of the clock.
const TICK: Duration = Duration::from_micros(1);

/// The bytes of a message: its number, and a pattern that depends on it.
pub(crate) fn message(number: u64, len: usize) -> Vec<u8> {
    let pattern = (0..len).map(|at| (number as usize * 31 + at * 7) as u8);
    number.to_le_bytes().into_iter().chain(pattern).collect()
}

impl World {
    /// Looks at everything. No time passes meanwhile.
    pub(crate) fn look(&mut self) {
        for yard in 0..self.yards.len() {
            let life = self.yards[yard].life;
            self.yards[yard].shadow.look(&format_args!("a region of engine {life}"));
        }
        self.look_at_counters();
        self.look_at_flights();
        self.look_at_batches();
        for (life, engine) in self.all_living() {
            self.look_at_word(life);
            let detours = self.detours(life);
            assert_eq!(engine.stats().fallbacks, detours, "engine {life} announces its detours");
        }
        self.receive();
    }

    fn look_at_flights(&mut self) {
        let now = self.network.clock().now();
        for flight in &mut self.flights {
            let id = flight.id;
            let Some(outcome) = flight.ended() else {
                assert!(
                    now <= flight.deadline + TICK,
                    "transfer {id} goes on at {now:?}, its deadline was {:?}",
                    flight.deadline
                );
                assert!(flight.outcome.is_none(), "transfer {id} had ended and goes on");
                continue;
            };
            if let Some(before) = flight.outcome {
                assert_eq!(before, outcome, "transfer {id} ended twice");
            } else {
                flight.outcome = Some(outcome);
                self.tally.ends[match outcome {
                    Outcome::Done => 0,
                    Outcome::Rejected(_) => 1,
                    Outcome::Fenced(_) => 2,
                    Outcome::Lost(_) => 3,
                }] += 1;
                assert!(
                    !flight.futile || !outcome.is_done(),
                    "transfer {id} is done, but its window was closed or too short"
                );
                let late = Outcome::Rejected(Reason::Deadline) == outcome
                    || Outcome::Fenced(Reason::Deadline) == outcome;
                assert!(!flight.cancelled || !late, "transfer {id} was cancelled, and {outcome}");
                if let (Outcome::Rejected(_), Some((life, value))) = (outcome, flight.word)
                    && let Some(word) = &mut self.lives[life].word
                {
                    word.rejected.insert(value);
                }
                if let Some(count) = flight.count {
                    self.counts[count].done += u64::from(outcome.is_done());
                    let Count { life, slot, .. } = self.counts[count];
                    let to = (self.lives[life].host, slot);
                    let carried = self.carried.get_mut(&to).expect("it was sent");
                    carried.rejected += u64::from(matches!(outcome, Outcome::Rejected(_)));
                }
                if let (Outcome::Rejected(_), Some(number)) = (outcome, flight.message) {
                    assert!(!self.numbers.contains(&number), "a rejected message arrived");
                    self.unsent.insert(number);
                }
            }
            let fenced = flight.fenced();
            assert!(fenced || !outcome.pages_are_free(), "transfer {id}: {outcome}, not fenced");
            if fenced && let Some(yard) = flight.permit.take() {
                self.yards[yard].shadow.end(id, outcome, &mut self.dice);
            }
        }
    }

    fn look_at_counters(&mut self) {
        for at in 0..self.counts.len() {
            let Carried { sent, rejected, first } = *self.carried(at);
            let count = &mut self.counts[at];
            let Some(counter) = &count.counter else { continue };
            let (life, now, last) = (count.life, counter.count(), count.last);
            count.last = now;
            assert!(
                now <= sent - rejected,
                "{:?} of engine {life} counts {now}; {sent} transfers carried it, {rejected} of them \
                 were rejected",
                count.slot
            );
            assert!(now >= last, "a count goes back");
            // The payload of what is counted is there. Known where one transfer alone can be counted.
            if now > last
                && sent == 1
                && let Some(flight) = self.flights.iter().find(|flight| flight.id == first)
                && let Some(yard) = flight.permit
                && self.yards[yard].life == life
            {
                let there = self.yards[yard].shadow.is_there(first);
                assert!(there, "transfer {first} is counted before all its bytes are there");
            }
        }
    }

    fn receive(&mut self) {
        for (life, engine) in self.all_living() {
            while let Some(incoming) = engine.try_recv() {
                let Incoming::Message { from, bytes } = incoming else { continue };
                let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
                assert_eq!(bytes, message(number, bytes.len() - 8), "message {number} is garbled");
                assert!(self.numbers.insert(number), "message {number} came twice");
                assert!(!self.unsent.contains(&number), "message {number} was rejected");
                let last = self.heard.insert((life, format!("{from:?}")), number);
                assert!(last.is_none_or(|last| last < number), "{number} came after {last:?}");
            }
        }
    }

    /// All has ended and nothing hinders: what was counted is what was done.
    pub(crate) fn balance(&mut self) {
        for flight in &self.flights {
            let id = flight.id;
            assert!(flight.outcome.is_some(), "transfer {id} never ended");
            assert!(flight.fenced(), "transfer {id}: {:?}, no proof", flight.outcome);
        }
        for count in &self.counts {
            let Some(counter) = &count.counter else { continue };
            let now = counter.count();
            assert!(now >= count.done, "{:?} counts {now} of {} done", count.slot, count.done);
        }
        for (life, engine) in self.all_living() {
            let stats = engine.stats();
            let ended = stats.done + stats.rejected + stats.fenced + stats.lost;
            assert_eq!(stats.submitted, ended, "engine {life}: {stats:?}");
            assert_eq!(stats.lost, stats.recovered, "engine {life}: {stats:?}");
        }
    }
}
