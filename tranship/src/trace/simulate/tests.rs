use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::tiers::{Costs, Spec};
use super::*;
use crate::trace::Reader;
use crate::trace::kinds::Kind;
use crate::trace::synth::Recipe;

/// What may be missing to the best of the listed policies, percent of all lookups.
const TOLERANCE: f64 = 1.5;

fn requests(ids: &[&[u64]]) -> Requests {
    let request = |(turn, ids): (usize, &&[u64])| Request {
        at_ms: turn as u64 * 1_000,
        input_tokens: ids.len() as u32 * BLOCK_TOKENS,
        output_tokens: 1,
        hash_ids: ids.to_vec(),
    };
    ids.iter().enumerate().map(request).collect()
}

fn ratio(contender: Contender, blocks: usize, requests: &Requests) -> f64 {
    let tokens = blocks as u64 * u64::from(BLOCK_TOKENS);
    run(contender, tokens, requests, &requests.future()).hit_ratio * 100.0
}

#[test]
fn hits_are_counted_as_far_as_the_chain_is_whole() {
    let trace = requests(&[&[1, 2, 3], &[9, 8], &[1, 2, 3], &[1, 2, 4], &[9, 8]]);
    let future = trace.future();
    let lru = run(Contender::Online(policy::Name::Lru), 4 * 512, &trace, &future);
    // [9, 8] evicts 3; the third request hits 1 and 2 and evicts 8; the fourth hits 1 and 2 and
    // evicts 9.
    assert_eq!((lru.requests, lru.lookups, lru.hits), (5, 13, 4));
    assert_eq!((lru.capacity_blocks, lru.stored, lru.not_stored), (4, 9, 0));
    // Never storing 3 and 4 keeps all others.
    let opt = run(Contender::Opt, 4 * 512, &trace, &future);
    assert_eq!((opt.hits, opt.stored, opt.not_stored), (6, 4, 3));
}

#[test]
fn nothing_beats_the_bound() {
    for kind in Kind::ALL {
        let trace: Requests = kind.trace(Recipe { requests: 300, seed: 5 }).into_iter().collect();
        for blocks in [60, 400] {
            let bound = ratio(Contender::Opt, blocks, &trace);
            for contender in Contender::all() {
                let ratio = ratio(contender, blocks, &trace);
                assert!(ratio <= bound + 1e-9, "{kind:?} {blocks}: {} {ratio}", contender.name());
            }
        }
    }
}

#[test]
fn no_policy_knows_what_comes() {
    let recipe = Recipe { requests: 400, seed: 8 };
    let whole = Kind::Tenants.trace(recipe);
    let half: Requests = whole[..200].iter().cloned().collect();
    let mut other = whole[..200].to_vec();
    other.extend(Kind::Frequency.trace(recipe).into_iter().map(|mut request| {
        request.at_ms += whole[200].at_ms;
        request
    }));
    for name in policy::Name::ALL {
        let hits = |requests: &Requests| -> Vec<usize> {
            let mut cache = Cache::new(name.policy(), 150, BLOCK_BYTES);
            let each = |(now, keys): (Millis, &[Key])| {
                let present = cache.prefix(keys);
                cache.request(keys, present, |_| None, |_| (), now);
                present
            };
            requests.iter().take(200).map(each).collect()
        };
        let (alone, followed) = (hits(&half), hits(&other.iter().cloned().collect()));
        assert_eq!(alone, followed, "{name}");
    }
}

/// `lineage` against the best of the others, on one trace at one capacity.
fn compare(what: &str, blocks: usize, trace: &Requests) -> f64 {
    let others = policy::Name::ALL.into_iter().filter(|name| *name != policy::Name::Lineage);
    let best = others
        .map(|name| (ratio(Contender::Online(name), blocks, trace), name))
        .reduce(|a, b| if b.0 > a.0 { b } else { a })
        .expect("there are others");
    let ours = ratio(Contender::Online(policy::Name::Lineage), blocks, trace);
    assert!(
        ours >= best.0 - TOLERANCE,
        "{what}, {blocks} blocks: lineage {ours:.2} %, but {} {:.2} %",
        best.1,
        best.0
    );
    ours - best.0
}

#[test]
fn lineage_is_not_below_the_best_of_the_others_on_any_kind() {
    let mut sum = 0.0;
    for kind in Kind::ALL {
        let trace = kind.trace(Recipe { requests: 900, seed: 3 });
        let mut seen: Vec<u64> =
            trace.iter().flat_map(|request| request.hash_ids.clone()).collect();
        seen.sort_unstable();
        seen.dedup();
        let trace: Requests = trace.into_iter().collect();
        for share in [30, 6] {
            sum += compare(kind.name(), seen.len() / share, &trace);
        }
    }
    // It gains more than it loses, by far.
    assert!(sum > 15.0, "{sum}");
}

#[test]
fn lineage_is_not_below_the_best_of_the_others_on_the_sample() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/conversation.jsonl");
    let trace = Requests::read(Reader::open(path.as_ref()).unwrap()).unwrap();
    for blocks in [180, 540, 1_800] {
        compare("the sample", blocks, &trace);
    }
}

/// The trace published with Mooncake's paper, if it is on this machine.
fn published() -> Option<Requests> {
    let (folder, name) = ("shared/traces", "conversation_trace.jsonl");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("TRANSHIP_TRACES").map(PathBuf::from);
    let mut folders = given.into_iter().chain(root.ancestors().map(|above| above.join(folder)));
    let Some(path) = folders.find(|folder| folder.join(name).is_file()).map(|at| at.join(name))
    else {
        // Not `eprintln!`, whose output a passing test hides.
        let root = root.display();
        let why = format!(
            "skipped: no {folder}/{name} above {root}; TRANSHIP_TRACES names another folder\n"
        );
        std::io::stderr().write_all(why.as_bytes()).expect("standard error is open");
        return None;
    };
    Some(Requests::read(Reader::open(&path).unwrap()).unwrap())
}

#[test]
fn the_published_trace_gives_the_published_figures() {
    let Some(trace) = published() else { return };
    let future = trace.future();
    let percent = |contender, tokens| run(contender, tokens, &trace, &future).hit_ratio * 100.0;
    let (lru, lineage) =
        (Contender::Online(policy::Name::Lru), Contender::Online(policy::Name::Lineage));
    let table = [(3_100_000, 13.9, 35.5, 18.9), (10_200_000, 28.7, 36.6, 29.7)];
    for (tokens, recent, bound, ours) in table {
        assert!((percent(lru, tokens) - recent).abs() < 0.3);
        assert!((percent(Contender::Opt, tokens) - bound).abs() < 0.3);
        let found = percent(lineage, tokens);
        assert!(found >= ours, "{tokens} tokens: {found:.2} %");
    }
}

fn spec(name: &str, blocks: u64) -> Spec {
    Spec {
        name: name.to_owned(),
        tokens: blocks * u64::from(BLOCK_TOKENS),
        bytes_per_second: 5_000_000_000,
        latency: Duration::from_micros(100),
    }
}

const COSTS: Costs = Costs { token_bytes: 131_072, recompute_us: 100.0 };

#[test]
fn a_tier_below_adds_hits_and_saves_time() {
    let trace: Requests =
        Kind::Conversation.trace(Recipe { requests: 600, seed: 4 }).into_iter().collect();
    let future = trace.future();
    for name in policy::Name::ALL {
        let contender = Contender::Online(name);
        let one = tiers::run(contender, &[spec("dram", 100)], COSTS, &trace, &future);
        let flat = run(contender, 100 * 512, &trace, &future);
        assert_eq!(one.hits, flat.hits, "{name}: one tier is what is simulated without tiers");
        let stack = [spec("dram", 100), spec("nvme", 400), spec("object", 2_000)];
        let all = tiers::run(contender, &stack, COSTS, &trace, &future);
        assert_eq!(all.tiers.iter().map(|tier| tier.hits).sum::<u64>(), all.hits);
        assert!(all.hits > one.hits + all.lookups / 20, "{name}: {} {}", all.hits, one.hits);
        assert!(all.saved_seconds > one.saved_seconds && all.saved_ratio < 1.0);
        let [_, nvme, object] = &all.tiers[..] else { panic!("three tiers") };
        assert!(nvme.hits > 0 && nvme.written_bytes > 0 && object.written_bytes > 0, "{name}");
        assert!(nvme.written_bytes_per_day > nvme.written_bytes as f64);
    }
}

#[test]
fn what_is_faster_to_compute_is_not_loaded() {
    let trace = requests(&[&[1, 2, 3], &[1, 2, 3]]);
    let future = trace.future();
    let contender = Contender::Online(policy::Name::Lru);
    let slow = Spec { bytes_per_second: 1_000_000, ..spec("dram", 10) };
    let outcome = tiers::run(contender, &[slow], COSTS, &trace, &future);
    assert_eq!((outcome.hits, outcome.passed_over, outcome.saved_seconds), (0, 3, 0.0));
}
