//! Several transfers at once: batches and scatter.

#![cfg(not(loom))]

use std::time::Duration;

use tranship_transport::{Drive, Engine, HostMemory, Lane, Outcome, Polling, Reason, Target};

const TIMEOUT: Duration = Duration::from_secs(30);
const LEN: u64 = 1 << 16;

fn engine(drive: Drive) -> Engine {
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    Engine::builder().drive(drive).polling(polling).deadline(TIMEOUT).build().unwrap()
}

#[test]
fn a_batch_has_one_outcome_for_each() {
    let (owner, writer) = (engine(Drive::Thread), engine(Drive::Thread));
    let there = owner.alloc(HostMemory::new(LEN as usize)).unwrap();
    let window = there.window(0..LEN / 2).unwrap();
    let here = writer.alloc(HostMemory::new(LEN as usize)).unwrap();
    here.memory().fill(0..LEN as usize, 7).unwrap();
    let to = writer.open(&window.descriptor()).unwrap();
    let arrivals = owner.counter().unwrap();
    let mut batch = writer.batch();
    for at in 0..16 {
        let (from, to) = (here.slice(at..at + 1).unwrap(), to.slice(at..at + 1).unwrap());
        batch.push(writer.write(from, to).immediate(arrivals.slot()));
    }
    batch.push(writer.write(here.slice(0..1).unwrap(), to.slice(0..2).unwrap()));
    assert_eq!(batch.len(), 17);
    let outcomes = batch.lane(Lane::Latency).deadline(TIMEOUT).wait();
    assert_eq!(outcomes[16], Outcome::Rejected(Reason::Uneven));
    assert!(outcomes[..16].iter().all(|outcome| outcome.is_done()), "{outcomes:?}");
    arrivals.wait(16, TIMEOUT).unwrap();
    let mut bytes = [0; 17];
    there.memory().read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes[..16], [7; 16]);
    assert_eq!(bytes[16], 0);
    assert!(writer.batch().wait().is_empty());
}

#[test]
fn a_scatter_gives_each_peer_its_part() {
    const PEERS: usize = 5;
    let sender = engine(Drive::Thread);
    let source = sender.alloc(HostMemory::new(LEN as usize)).unwrap();
    for at in 0..LEN as usize {
        source.memory().write_at(at, &[(at % 251) as u8]).unwrap();
    }
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let engine = engine(Drive::Thread);
            let region = engine.alloc(HostMemory::new(LEN as usize)).unwrap();
            let window = region.window(0..LEN).unwrap();
            let arrivals = engine.counter().unwrap();
            (region, window, arrivals)
        })
        .collect();
    // Unequal parts, an empty one among them.
    let bounds = [0, 100, 100, 5000, 5001, 40_000];
    let group: Vec<_> = peers
        .iter()
        .enumerate()
        .map(|(at, (_, window, arrivals))| {
            let from = bounds[at]..bounds[at + 1];
            let to = sender.open(&window.descriptor()).unwrap();
            let to = to.slice(7..7 + from.end - from.start).unwrap();
            Target { from, to, slot: Some(arrivals.slot()) }
        })
        .collect();
    let all = source.slice(0..LEN).unwrap();
    for round in 1..=3 {
        let outcomes = sender.scatter(&all, &group).unwrap().wait();
        assert!(outcomes.iter().all(|outcome| outcome.is_done()), "{outcomes:?}");
        for (at, (region, _, arrivals)) in peers.iter().enumerate() {
            arrivals.wait(round, TIMEOUT).unwrap();
            let mut got = vec![0; (bounds[at + 1] - bounds[at]) as usize];
            region.memory().read_at(7, &mut got).unwrap();
            let expected: Vec<_> =
                (bounds[at]..bounds[at + 1]).map(|at| (at % 251) as u8).collect();
            assert_eq!(got, expected);
        }
    }
    let beyond = [Target { from: 0..LEN + 1, to: group[0].to.clone(), slot: None }];
    let error = sender.scatter(&all, &beyond).unwrap_err().to_string();
    assert_eq!(error, "bytes 0..65537 are not inside 0..65536");
}
