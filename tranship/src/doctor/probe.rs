//! A short look at what a fabric does between two engines of this process.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tranship_transport::fabric::Provider;
use tranship_transport::{
    Counter, Engine, HostMemory, Outcome, Rail, Region, RemoteWindow, Slot, Submission, Transfer,
    Window,
};

use super::Speed;

/// Time for each of the two figures.
const TIME: Duration = Duration::from_millis(60);
/// How long any single thing may take: libfabric needs a second to get going on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Large writes run at the speed of the fabric, small ones show what a message costs.
const LARGE_BYTES: u64 = 1 << 20;
const SMALL_BYTES: u64 = 64;
/// Large writes under way at once, each with a place of its own.
const WRITES: u64 = 16;

/// What a fabric did, and by which rails.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) speed: Speed,
    pub(super) rails: Vec<Rail>,
}

/// Measures writes from one engine to another, in a tenth of a second.
///
/// # Errors
/// What failed, in words.
pub(super) fn measure(
    here: impl Provider + 'static,
    there: impl Provider + 'static,
) -> Result<Measured, String> {
    let [here, there] = [End::new(here)?, End::new(there)?];
    let out = Path::new(&here, &there)?;
    let gb_per_s = out.stream()?;
    let back = Path::new(&there, &here)?;
    let speed = Speed { gb_per_s, one_way_us: one_way(&out, &back)? };
    Ok(Measured { speed, rails: here.engine.rails() })
}

/// One engine and its memory.
struct End {
    engine: Engine,
    memory: Region,
}

impl End {
    fn new(provider: impl Provider + 'static) -> Result<Self, String> {
        let engine = Engine::builder().fabric(provider).build().map_err(|e| e.to_string())?;
        let bytes = usize::try_from(WRITES * LARGE_BYTES).map_err(|e| e.to_string())?;
        let memory = HostMemory::new(bytes).name("doctor").prefault();
        let memory = engine.alloc(memory).map_err(|e| e.to_string())?;
        Ok(Self { engine, memory })
    }
}

/// The way from one end to the other.
struct Path<'a> {
    from: &'a End,
    to: RemoteWindow,
    arrivals: Counter,
    slot: Slot,
    _window: Window,
}

impl<'a> Path<'a> {
    fn new(from: &'a End, to: &End) -> Result<Self, String> {
        let window = to.memory.window(0..to.memory.len()).map_err(|e| e.to_string())?;
        let arrivals = to.engine.counter().map_err(|e| e.to_string())?;
        let slot = arrivals.slot();
        let to = from.engine.open(&window.descriptor()).map_err(|e| e.to_string())?;
        let path = Self { from, to, arrivals, slot, _window: window };
        // Connects.
        path.small(0)?;
        Ok(path)
    }

    fn write(&self, at: u64, bytes: u64) -> Result<Submission<'_>, String> {
        let local = self.from.memory.slice(at..at + bytes).map_err(|e| e.to_string())?;
        let remote = self.to.slice(at..at + bytes).map_err(|e| e.to_string())?;
        Ok(self.from.engine.write(local, remote).deadline(PATIENCE))
    }

    /// Writes a few bytes and waits until they are seen over there, `seen` such having been before.
    fn small(&self, seen: u64) -> Result<(), String> {
        let sent = self.write(0, SMALL_BYTES)?.immediate(self.slot).submit();
        let sent = sent.map_err(|e| e.to_string())?;
        if self.arrivals.wait(seen + 1, PATIENCE).is_err() {
            return Err(sent.wait().to_string());
        }
        Ok(())
    }

    /// 10⁹ bytes a second.
    fn stream(&self) -> Result<f64, String> {
        let start = |turn: u64| {
            let write = self.write(turn % WRITES * LARGE_BYTES, LARGE_BYTES)?;
            write.submit().map_err(|e| e.to_string())
        };
        let mut running = VecDeque::new();
        for turn in 0..WRITES {
            running.push_back(start(turn)?);
        }
        let (began, mut ended) = (Instant::now(), 0);
        while began.elapsed() < TIME {
            match running.pop_front().as_ref().map(Transfer::wait) {
                Some(Outcome::Done) => ended += 1,
                Some(other) => return Err(other.to_string()),
                None => return Err("nothing under way".to_owned()),
            }
            running.push_back(start(WRITES + ended)?);
        }
        let rate = (ended * LARGE_BYTES) as f64 / began.elapsed().as_secs_f64() / 1e9;
        match running.iter().map(Transfer::wait).find(|outcome| !outcome.is_done()) {
            Some(outcome) => Err(outcome.to_string()),
            None => Ok(rate),
        }
    }
}

/// Median time of a small write until it is seen, µs, there and back in turns.
fn one_way(out: &Path<'_>, back: &Path<'_>) -> Result<f64, String> {
    let (began, mut seen) = (Instant::now(), 1);
    let mut rounds = Vec::new();
    while began.elapsed() < TIME {
        let round = Instant::now();
        out.small(seen)?;
        back.small(seen)?;
        rounds.push(round.elapsed());
        seen += 1;
    }
    rounds.sort_unstable();
    let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
    Ok(median.as_secs_f64() * 1e6 / 2.0)
}

#[cfg(test)]
mod tests {
    use tranship_transport::fabric::shm;

    use super::*;

    #[test]
    fn both_figures_are_there() {
        let Measured { speed, rails } = measure(shm::Config::new(), shm::Config::new()).unwrap();
        assert!(rails.is_empty(), "shared memory has none");
        assert!(speed.gb_per_s > 0.0 && speed.one_way_us > 0.0, "{speed}");
    }
}
