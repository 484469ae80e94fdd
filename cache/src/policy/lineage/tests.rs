use super::*;
use crate::key::Key;

const SCOPE: u32 = 3;

fn keys(chain: u8, blocks: u8) -> Vec<Key> {
    (0..blocks)
        .map(|position| {
            let mut bytes = [0x5a; 16];
            (bytes[0], bytes[1]) = (chain, position);
            Key::from_bytes(bytes)
        })
        .collect()
}

fn ask(policy: &mut Lineage, keys: &[Key], at_ms: u64) {
    policy.on_request(&Request { scope: SCOPE, keys }, Millis(at_ms));
}

fn known(policy: &Lineage, key: Key) -> Known {
    policy.known[policy.known.find(name(SCOPE, key)).expect("it is known")]
}

fn kind(policy: &Lineage, key: Key) -> Kind {
    policy.lives.class(known(policy, key).row).kind()
}

fn insert(policy: &mut Lineage, id: u32, keys: &[Key], position: usize, at_ms: u64) {
    let traits = Traits {
        scope: SCOPE,
        key: keys[position],
        parent: position.checked_sub(1).map(|before| keys[before]),
        bytes: 4096,
    };
    policy.on_insert(BlockId(id), &traits, Millis(at_ms));
}

#[test]
fn a_session_is_recognised_by_its_chain() {
    let mut policy = Lineage::new();
    let talk = keys(1, 8);
    ask(&mut policy, &talk[..4], 0);
    assert_eq!(kind(&policy, talk[0]), Kind::Fresh);
    assert_eq!(kind(&policy, talk[3]), Kind::Tip);
    ask(&mut policy, &talk[..6], 60_000);
    assert_eq!(kind(&policy, talk[0]), Kind::Turn1);
    ask(&mut policy, &talk, 120_000);
    assert_eq!(kind(&policy, talk[5]), Kind::Turn2);
    assert_eq!(known(&policy, talk[0]).uses, 3);
    // An answer is made again: the chain goes another way from its fourth block on.
    let mut other = talk[..4].to_vec();
    other.extend(&keys(2, 3));
    ask(&mut policy, &other, 180_000);
    assert_eq!(kind(&policy, other[1]), Kind::Branch);
    assert_eq!(kind(&policy, talk[4]), Kind::Left, "nobody goes on from here");
}

#[test]
fn a_prefix_of_many_is_nobodys_session() {
    let mut policy = Lineage::new();
    let prompt = keys(9, 4);
    for session in 10..20 {
        let mut chain = prompt.clone();
        chain.extend(keys(session, 3));
        ask(&mut policy, &chain, u64::from(session) * 5_000);
    }
    assert_eq!(kind(&policy, prompt[0]), Kind::Shared);
    assert_eq!(kind(&policy, prompt[3]), Kind::Shared);
    assert_eq!(kind(&policy, keys(19, 1)[0]), Kind::Fresh);
    assert_eq!(known(&policy, prompt[3]).gap.octave(), 12, "five seconds");
}

#[test]
fn a_request_counts_once_however_often_it_is_looked_up() {
    let mut policy = Lineage::new();
    let chain = keys(1, 3);
    for at_ms in [0, 10, 500, 999] {
        ask(&mut policy, &chain, at_ms);
    }
    assert_eq!(known(&policy, chain[0]).uses, 1);
    (0..3).for_each(|position| insert(&mut policy, position as u32, &chain, position, 1_100));
    assert_eq!(known(&policy, chain[0]).uses, 1, "what comes of a lookup is not another use");
    ask(&mut policy, &chain, 1_200);
    policy.on_hit(BlockId(0), Millis(1_201));
    assert_eq!(known(&policy, chain[0]).uses, 2);
}

#[test]
fn clients_that_never_look_up_are_understood() {
    let mut policy = Lineage::new();
    let chain = keys(1, 3);
    (0..3).for_each(|position| insert(&mut policy, position as u32, &chain, position, 0));
    assert_eq!(kind(&policy, chain[2]), Kind::Fresh);
    for turn in 1..4 {
        (0..3).for_each(|id| policy.on_hit(BlockId(id), Millis(turn * 60_000)));
    }
    assert_eq!(known(&policy, chain[1]).uses, 4);
    assert_eq!(kind(&policy, chain[1]), Kind::Turn4);
}

#[test]
fn time_that_runs_backwards_changes_nothing() {
    let mut policy = Lineage::new();
    ask(&mut policy, &keys(1, 3), 50_000);
    ask(&mut policy, &keys(2, 3), 10);
    assert_eq!(known(&policy, keys(2, 3)[0]).last_ms, 50_000);
    assert_eq!(policy.victim(Millis(0)), None);
}

#[test]
fn what_somebody_removed_is_forgotten() {
    let mut policy = Lineage::new();
    let chain = keys(1, 2);
    insert(&mut policy, 0, &chain, 0, 0);
    insert(&mut policy, 1, &chain, 1, 0);
    policy.on_remove(BlockId(1), Removal::Corrupt);
    assert!(policy.known.find(name(SCOPE, chain[1])).is_none());
    policy.on_remove(BlockId(0), Removal::Evicted);
    assert!(policy.known.find(name(SCOPE, chain[0])).is_some(), "a ghost");
}

/// Sessions of two blocks that come back after a minute, and strangers that do not.
fn taught() -> Lineage {
    let mut policy = Lineage::new();
    for round in 0..400_u64 {
        let now_ms = round * 60_000;
        for session in 0..8 {
            ask(&mut policy, &keys(session, 3), now_ms);
        }
        for stranger in 0..8_u64 {
            let mut chain = keys(200, 6);
            for key in &mut chain {
                let number = (round * 8 + stranger + 1).to_le_bytes();
                let mut bytes = *key.as_bytes();
                bytes[8..].copy_from_slice(&number);
                *key = Key::from_bytes(bytes);
            }
            ask(&mut policy, &chain, now_ms);
        }
    }
    policy
}

#[test]
fn marks_tell_what_comes_back_from_what_does_not() {
    let mut policy = taught();
    let now = Millis(400 * 60_000);
    let (session, stranger) = (keys(0, 3), keys(250, 6));
    ask(&mut policy, &session, now.0);
    ask(&mut policy, &stranger, now.0);
    insert(&mut policy, 0, &session, 0, now.0);
    insert(&mut policy, 1, &stranger, 0, now.0);
    let (comes, goes) = (policy.mark(BlockId(0)), policy.mark(BlockId(1)));
    let worth = |policy: &Lineage, mark, age| policy.worth(mark, Millis(age));
    assert!(worth(&policy, comes, 1_000) > 10.0 * worth(&policy, goes, 1_000));
    assert!(worth(&policy, comes, 1_000) > 10.0 * worth(&policy, comes, 600_000));
    assert_eq!(policy.recall(SCOPE, session[0], now).unwrap().0, comes);
    // A use in a tier below makes a session of the stranger.
    let again = policy.on_hit_below(goes, Millis(60_000), now);
    assert!(worth(&policy, again, 0) > worth(&policy, goes, 0));
    assert!(worth(&policy, Mark::default(), 1_000) > 0.0);
}

#[test]
fn the_worthless_is_refused_where_the_valuable_would_leave() {
    let mut policy = taught();
    let now_ms = 400 * 60_000;
    let (session, stranger) = (keys(0, 3), keys(250, 6));
    ask(&mut policy, &session, now_ms);
    insert(&mut policy, 0, &session, 0, now_ms);
    ask(&mut policy, &stranger, now_ms + 1_000);
    let newcomer = Traits { scope: SCOPE, key: stranger[0], parent: None, bytes: 4096 };
    let now = Millis(now_ms + 1_000);
    assert_eq!(policy.victim(now), Some(BlockId(0)));
    assert!(!policy.admit(&newcomer, BlockId(0), now));
    let (later, another) = (now_ms + 3_600_000, keys(1, 3));
    ask(&mut policy, &another, later);
    let newcomer = Traits { key: another[0], ..newcomer };
    assert!(policy.admit(&newcomer, BlockId(0), Millis(later)), "it did not come back in time");
}
