//! Any length, whole.

use super::harness::{Harness, skip};
use super::kit::{AMPLE, Dice, Pair, all_done, bytes_at, bytes_of, engine, fill, start};
use crate::memory::HostMemory;
use crate::outcome::Outcome;
use crate::window::Access;

/// Lengths around everything that implementations cut at: words, lines, pages, chunks.
const LENGTHS_BYTES: [u64; 17] = [
    0, 1, 2, 3, 7, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 262_143, 262_145, 300_001,
];
/// Around the largest pages and copy chunks; in the first case only, for they take time.
const LONG_LENGTHS_BYTES: [u64; 4] = [(1 << 20) - 1, (1 << 20) + 1, (2 << 20) - 1, (2 << 20) + 1];
/// Bytes around each payload that must stay as they are.
const MARGIN: u64 = 128;

/// "Lengths, splits and shards lose no byte": writes and reads of every length, at odd places, with
/// nothing changed around them.
pub fn every_length_arrives_whole<H: Harness>(harness: &H) {
    let first = H::cases().first() == Some(&harness.case());
    let mut lengths = LENGTHS_BYTES.to_vec();
    lengths.extend(LONG_LENGTHS_BYTES.iter().filter(|_| first));
    let most = lengths.iter().max().expect("not empty");
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, (most + 2 * MARGIN) as usize);
    let expected = dice.fill(&pair.source);
    let (_window, remote) = pair.offer();
    for len in lengths {
        let (from, to) = (dice.below(MARGIN), 1 + dice.below(MARGIN - 1));
        fill(&pair.target, 0);
        assert_eq!(pair.write(from..from + len, &remote, to).wait(), Outcome::Done, "{len}");
        let sent = &expected[from as usize..(from + len) as usize];
        let came = bytes_at(pair.target.memory(), to - 1..to + len + 1);
        assert!(came[1..came.len() - 1] == *sent, "{len} bytes written");
        assert_eq!((came[0], came[came.len() - 1]), (0, 0), "around {len} bytes written");

        let back = pair.a.alloc(HostMemory::new((len + 2) as usize)).unwrap();
        let read =
            pair.a.read(remote.slice(to..to + len).unwrap(), back.slice(1..len + 1).unwrap());
        assert_eq!(read.deadline(AMPLE).wait(), Outcome::Done, "{len}");
        let came = bytes_of(&back);
        assert!(came[1..came.len() - 1] == *sent, "{len} bytes read");
        assert_eq!((came[0], came[came.len() - 1]), (0, 0), "around {len} bytes read");
    }
}

/// "Splits and shards lose no byte": a payload cut at random places and written in random order.
pub fn shards_lose_no_byte<H: Harness>(harness: &H) {
    const BYTES: u64 = 100_000;
    let mut dice = Dice::new(harness);
    let pair = Pair::new(harness, BYTES as usize);
    let expected = dice.fill(&pair.source);
    let (_window, to) = pair.offer();
    let counter = pair.b.counter().unwrap();
    let mut cuts: Vec<u64> = (0..20).map(|_| dice.below(BYTES)).chain([0, BYTES]).collect();
    cuts.sort_unstable();
    let mut shards: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
    for at in (1..shards.len()).rev() {
        shards.swap(at, dice.below(at as u64 + 1) as usize);
    }
    let sent: Vec<_> = shards
        .iter()
        .map(|shard| start(pair.write(shard.clone(), &to, shard.start).immediate(counter.slot())))
        .collect();
    assert_eq!(counter.wait(shards.len() as u64, AMPLE).unwrap(), shards.len() as u64);
    assert!(bytes_of(&pair.target) == expected);
    all_done(&sent);
}

/// "Any size from 0 to beyond 4 GiB."
pub fn more_than_four_gib_arrive_whole<H: Harness>(harness: &H) {
    const FOUR_GIB: u64 = 1 << 32;
    const LEN: u64 = FOUR_GIB + 4097;
    const NEEDED_KIB: u64 = 10 << 20;
    if H::cases().first() != Some(&harness.case()) {
        return;
    }
    if free_kib().is_none_or(|free| free < NEEDED_KIB) {
        skip("less than 10 GiB of memory are free");
    }
    let (a, b) = (engine(harness), engine(harness));
    let sparse = |len: u64| HostMemory::new(len as usize).sparse();
    let source = a.alloc(sparse(LEN)).unwrap();
    let target = b.alloc(sparse(LEN + 2)).unwrap();
    // A mark at every place where 32 bits, signed or not, or a page would go wrong.
    let half = 1 << 31;
    let marks = [0, half - 1, half, half + 1, FOUR_GIB - 1, FOUR_GIB, FOUR_GIB + 1, LEN - 1];
    for (at, mark) in marks.into_iter().zip(1u8..) {
        source.memory().write_at(at as usize, &[mark]).unwrap();
    }
    let window = target.window_with(0..LEN + 2, Access::WRITE).unwrap();
    let to = a.open(&window.descriptor()).unwrap();
    let sent = a.write(source.slice(0..LEN).unwrap(), to.slice(1..LEN + 1).unwrap());
    assert_eq!(sent.deadline(AMPLE * 6).wait(), Outcome::Done);
    for (at, mark) in marks.into_iter().zip(1u8..) {
        assert_eq!(bytes_at(target.memory(), at + 1..at + 2), [mark], "byte {at}");
    }
    for at in [0, LEN + 1, 4096, half + 100, FOUR_GIB + 100] {
        assert_eq!(bytes_at(target.memory(), at..at + 1), [0], "byte {at} around");
    }
    assert_eq!(a.stats().written_bytes, LEN);
}

/// Memory that can be had without swapping, KiB (`proc_meminfo(5)`, `MemAvailable`).
fn free_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
