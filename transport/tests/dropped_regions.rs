//! Regions that are dropped while something moves on them: the memory stays until that has provably ended.

#![cfg(not(loom))]

use std::sync::{Arc, Weak};
use std::time::Duration;

use tranship_transport::fabric::null::{Config, Held};
use tranship_transport::{Drive, Engine, HostMemory, Memory, Outcome, Reason, Transfers};

/// Starts so many writes from a region and drops it; what is left of the region is its memory.
fn dropped_under(
    engine: &Engine,
    there: &Engine,
    writes: usize,
    deadline: Duration,
) -> (Transfers, Weak<Memory>) {
    let target = there.alloc(HostMemory::new(4096)).unwrap();
    let window = target.window(0..4096).unwrap();
    let to = engine.open(&window.descriptor()).unwrap().slice(0..64).unwrap();
    let region = engine.alloc(HostMemory::new(4096)).unwrap();
    let from = region.slice(0..64).unwrap();
    let mut batch = engine.batch();
    batch.extend((0..writes).map(|_| engine.write(&from, &to)));
    let transfers = batch.deadline(deadline).submit();
    drop(from);
    // The first waits for the connection.
    engine.progress();
    let memory = Arc::downgrade(region.memory());
    drop(region);
    (transfers, memory)
}

/// An engine whose transfers end when they are told to, and one to write to.
fn engines() -> (Held, Engine, Engine) {
    let held = Held::default();
    let build =
        |config| Engine::builder().fabric(config).drive(Drive::Caller).build().expect("no limits");
    let (here, there) = (build(Config::held(&held)), build(Config::new()));
    (held, here, there)
}

/// Drives until nothing is left to do.
fn drive(engine: &Engine) {
    while engine.progress() {}
}

#[test]
fn its_memory_stays_until_the_last_of_them_has_ended() {
    let (held, here, there) = engines();
    let (transfers, memory) = dropped_under(&here, &there, 3, Duration::from_secs(60));
    drive(&here);
    assert_eq!(held.transfers(), 3);
    for left in (0..3).rev() {
        assert!(memory.upgrade().is_some(), "{left} more are on it");
        assert_eq!(held.deregistered(), 0);
        held.end_one();
        drive(&here);
    }
    assert_eq!(transfers.outcomes(), Some(vec![Outcome::Done; 3]));
    assert_eq!(held.deregistered(), 1);
    assert!(memory.upgrade().is_none(), "nothing is on it any more");
}

#[test]
fn its_memory_stays_while_a_transfer_is_lost() {
    let (held, here, there) = engines();
    let (transfers, memory) = dropped_under(&here, &there, 1, Duration::from_millis(1));
    assert_eq!(transfers.wait(), [Outcome::Lost(Reason::Deadline)]);
    drive(&here);
    assert!(memory.upgrade().is_some() && !transfers.fenced(), "it may still move");
    assert_eq!(held.deregistered(), 0);
    held.end_one();
    drive(&here);
    assert!(transfers.fenced());
    assert!(memory.upgrade().is_none(), "nothing is on it any more");
}
