//! Watched words of a schedule: numbers that peers write, and what is heard of them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tranship_transport::{Access, Watcher};

use crate::flight::{Change, Prepared};
use crate::program::Route;
use crate::world::{REGION_BYTES, SHELF_BYTES, World};

/// Where an engine's word is in its constant region.
const WORD: Range<u64> = REGION_BYTES - 8..REGION_BYTES;
/// Before it are the numbers from one on, to be written into the words of others.
const NUMBERS: u64 = (REGION_BYTES - SHELF_BYTES) / 8 - 1;
/// Which of the region's windows is the word's.
const LANE: usize = 1;

/// The word of an engine. Whoever writes it writes the next number, and only when nobody else can:
/// so it only grows.
pub(crate) struct Word {
    watcher: Watcher,
    heard: Heard,
    /// How much of what was heard has been looked at, and the last of it.
    looked: usize,
    last: u64,
    /// The last number that somebody set out to write, and the transfer that did.
    written: u64,
    flight: Option<u64>,
    /// Numbers that were not written.
    pub(crate) rejected: BTreeSet<u64>,
}

type Heard = Arc<Mutex<Vec<u64>>>;

/// Has the changes of a word told.
fn listen(watcher: &Watcher) -> Heard {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    watcher.on_change(move |value| told.lock().unwrap_or_else(PoisonError::into_inner).push(value));
    heard
}

impl World {
    /// An engine that just started begins to watch its word.
    pub(crate) fn watch(&mut self, life: usize) {
        let yard = self.lives[life].shelf;
        let numbers: Vec<u8> = (1..=NUMBERS).chain([0]).flat_map(u64::to_ne_bytes).collect();
        self.yards[yard].shadow.put(SHELF_BYTES as usize, &numbers);
        self.offer(yard, LANE, WORD, Access::WRITE);
        let watcher = self.watcher(life);
        let heard = listen(&watcher);
        self.lives[life].word = Some(Word {
            watcher,
            heard,
            looked: 0,
            last: 0,
            written: 0,
            flight: None,
            rejected: BTreeSet::new(),
        });
    }

    fn watcher(&self, life: usize) -> Watcher {
        let engine = self.lives[life].engine.as_ref().expect("only the living watch");
        let region = self.yards[self.lives[life].shelf].region.as_ref().expect("it lives");
        engine.watch(region.memory(), WORD.start).expect("inside, and aligned")
    }

    /// Whether an offer is the word's: nothing but numbers is written there.
    pub(crate) fn is_word(&self, offer: usize) -> bool {
        self.offers[offer].range == WORD
    }

    /// Writes the next number into a host's word.
    pub(crate) fn bump(&mut self, from: u64, host: u64, deadline: Duration) {
        let (Some((life, engine)), Some((owner, _))) = (self.living(from), self.living(host))
        else {
            return;
        };
        let (yard, shelf) = (self.lives[owner].shelf, self.lives[life].shelf);
        let Some(Word { written, flight, .. }) = &self.lives[owner].word else { return };
        let (value, before) = (written + 1, *flight);
        // What was written last may still come, and what comes late may be less.
        let busy = before.is_some_and(|id| self.yards[yard].shadow.permits(id));
        if busy || value > NUMBERS {
            return;
        }
        if self.yards[yard].lanes[LANE].is_none() {
            self.offer(yard, LANE, WORD, Access::WRITE);
        }
        let Some(offer) = self.yards[yard].lanes[LANE] else { return };
        if !self.offers[offer].open {
            return;
        }
        let Some(remote) = self.open(life, offer, Route::Known) else { return };
        let remote = remote.slice(0..8).expect("it is as long");
        let at = SHELF_BYTES + 8 * (value - 1);
        let region = self.yards[shelf].region.as_ref().expect("it lives");
        let local = region.slice(at..at + 8).expect("in the region");
        let bytes = WORD.map(|at| at as u16).zip(value.to_ne_bytes()).collect();
        let change = Some(Change { yard, offer: Some(offer), bytes });
        let submission = engine.write(local, remote).into_owned();
        let write = Prepared { submission, count: None, futile: false, change };
        let flight = self.launch(life, write, deadline);
        flight.word = Some((owner, value));
        let id = flight.id;
        self.yards[yard].shadow.keep(id);
        if let Some(word) = &mut self.lives[owner].word {
            (word.written, word.flight) = (value, Some(id));
        }
    }

    /// Somebody else listens from now on, with the same watcher or another.
    pub(crate) fn rewatch(&mut self, host: u64) {
        let Some((life, _)) = self.living(host) else { return };
        self.look_at_word(life);
        let another = self.dice.percent(50).then(|| self.watcher(life));
        let Some(word) = &mut self.lives[life].word else { return };
        if let Some(another) = another {
            word.watcher = another;
        }
        let before = std::mem::replace(&mut word.heard, listen(&word.watcher));
        assert_eq!(Arc::strong_count(&before), 1, "nobody tells who is told no more");
        (word.looked, word.last) = (0, word.watcher.value());
    }

    /// Waits for a change of a word.
    pub(crate) fn await_word(&mut self, host: u64, wait: Duration) {
        let Some((life, _)) = self.living(host) else { return };
        let Some(word) = &self.lives[life].word else { return };
        let past = word.watcher.value();
        match word.watcher.wait(past, wait) {
            Ok(value) => assert!(value > past, "engine {life}'s word went from {past} to {value}"),
            Err(error) => assert_eq!((error.past, word.watcher.value()), (past, past)),
        }
    }

    /// What was heard of a word was written there, in this order.
    pub(crate) fn look_at_word(&mut self, life: usize) {
        let Some(Word { heard, looked, last, written, rejected, .. }) = &mut self.lives[life].word
        else {
            return;
        };
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        for value in &heard[*looked..] {
            assert!(value > last, "engine {life} hears {value} after {last}");
            assert!(value <= written, "engine {life} hears {value}, of {written} written");
            *last = *value;
            self.tally.reached[1] += 1;
        }
        *looked = heard.len();
        let unwritten = rejected.iter().find(|value| heard.contains(value));
        assert!(unwritten.is_none(), "engine {life} hears {unwritten:?}, which was rejected");
    }

    /// Nothing comes any more: the last change of each word was heard.
    pub(crate) fn words_are_heard(&mut self) {
        for (life, engine) in self.all_living() {
            while engine.progress() {}
            self.look_at_word(life);
            let Some(word) = &self.lives[life].word else { continue };
            assert_eq!(word.last, word.watcher.value(), "engine {life} hears of the last change");
        }
    }
}
