use std::collections::HashMap;

use proptest::prelude::*;

use super::super::super::codec::Codec;
use super::*;

fn name(identity: u8, number: u16) -> Name {
    let mut key = [0; 16];
    key[..2].copy_from_slice(&number.to_le_bytes());
    Name { identity: IdentityId::from_bytes([identity; 16]), key: Key::from_bytes(key) }
}

fn listed(name: Name, len: u64, expires: Option<u64>) -> Listed {
    let expires = expires.map(|seconds| Wall(seconds * 1000));
    Listed { name, len, checksum: len, expires, offset: 0, stored: len + 100, codec: Codec::None }
}

fn pack(index: &mut Index, number: u8, ours: bool) -> Serial {
    let id = PackId::from_bytes([number; 32]);
    let mut pack = Pack::new(Body::Stored(id), ours, Wall(0));
    pack.size = 100;
    let serial = index.add(pack);
    index.stored(serial, id, 1000 + u64::from(number));
    serial
}

fn all(index: &Index, now: Wall, step: usize) -> Vec<Name> {
    let (mut names, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let (found, next) = index.visit(at, step, now);
        names.extend(found.into_iter().map(|(name, _)| name));
        from = next;
    }
    names
}

#[test]
fn of_two_places_the_one_that_lives_longer_is_found() {
    let mut index = Index::new();
    let (a, b) = (pack(&mut index, 1, true), pack(&mut index, 2, false));
    index.push(a, &listed(name(1, 1), 10, Some(5)), None);
    index.push(b, &listed(name(1, 1), 10, Some(9)), None);
    let at = |index: &Index, seconds: u64| {
        index.find(&name(1, 1), Wall(seconds * 1000)).map(|hit| hit.place.pack)
    };
    assert_eq!(index.totals(), (1, 10));
    assert_eq!((at(&index, 4), at(&index, 8), at(&index, 9)), (Some(b), Some(b), None));
    assert_eq!(all(&index, Wall(0), 1), [name(1, 1)]);
    assert_eq!(index.drop_pack(b), 1);
    assert_eq!((at(&index, 4), at(&index, 8)), (Some(a), None));
    assert_eq!(index.totals(), (1, 10));
    index.drop_pack(a);
    assert_eq!(index.totals(), (0, 0));
}

#[test]
fn uses_are_counted_and_halved_when_a_block_moves() {
    let mut index = Index::new();
    let (a, b) = (pack(&mut index, 1, true), pack(&mut index, 2, true));
    index.push(a, &listed(name(1, 1), 10, None), None);
    let hit = index.find(&name(1, 1), Wall(0)).unwrap();
    for _ in 0..9 {
        index.used(hit.place);
    }
    index.has_child(&name(1, 1));
    let mark = index.found(&name(1, 1), Wall(0)).unwrap().mark;
    assert_eq!((mark.hits, mark.parent), (9, true));
    index.push(b, &hit.listed, None);
    index.inherit(hit.place, b);
    assert!(!index.is_elsewhere(a), "no manifest names the other");
    index.pack_mut(b).unwrap().named = 1;
    assert!(index.is_elsewhere(a));
    index.drop_pack(a);
    assert_eq!(index.found(&name(1, 1), Wall(0)).unwrap().mark.hits, 4);
}

#[derive(Clone, Debug)]
enum Step {
    Add { pack: usize, identity: u8, number: u16, len: u64, expires: Option<u64> },
    Remove { identity: u8, number: u16 },
    Clear { identity: u8 },
    Drop { pack: usize },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_usize..6, 0_u8..3, 0_u16..20, 1_u64..9, prop::option::of(1_u64..9)).prop_map(
            |(pack, identity, number, len, expires)| {
                Step::Add { pack, identity, number, len, expires }
            }
        ),
        2 => (0_u8..3, 0_u16..20).prop_map(|(identity, number)| Step::Remove { identity, number }),
        1 => (0_u8..3).prop_map(|identity| Step::Clear { identity }),
        1 => (0_usize..6).prop_map(|pack| Step::Drop { pack }),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Beside a list of all places, in which everything is searched for.
    #[test]
    fn the_index_is_a_list_of_places(steps in steps(), now in 0_u64..10) {
        let mut index = Index::new();
        let mut packs: Vec<Serial> = (0..6).map(|n| pack(&mut index, n, true)).collect();
        let mut next = 6;
        let mut places: Vec<(Serial, Name, u64, Option<u64>)> = Vec::new();
        let wall = Wall(now * 1000);
        for step in steps {
            match step {
                Step::Add { pack, identity, number, len, expires } => {
                    let name = name(identity, number);
                    prop_assert!(index.push(packs[pack], &listed(name, len, expires), None));
                    places.push((packs[pack], name, len, expires));
                }
                Step::Remove { identity, number } => {
                    let name = name(identity, number);
                    index.remove(&name);
                    places.retain(|(_, other, ..)| *other != name);
                }
                Step::Clear { identity } => {
                    let identity = IdentityId::from_bytes([identity; 16]);
                    index.clear(identity);
                    places.retain(|(_, name, ..)| name.identity != identity);
                }
                Step::Drop { pack: at } => {
                    index.drop_pack(packs[at]);
                    places.retain(|(serial, ..)| *serial != packs[at]);
                    packs[at] = pack(&mut index, next, true);
                    next += 1;
                }
                Step::Sweep => {
                    packs.iter().for_each(|serial| { index.sweep(*serial, wall); });
                    places.retain(|(.., expires)| expires.is_none_or(|at| at > now));
                }
            }
        }
        let mut best: HashMap<Name, u64> = HashMap::new();
        let mut known: HashMap<Name, ()> = HashMap::new();
        for (_, name, _, expires) in &places {
            known.insert(*name, ());
            let end = expires.unwrap_or(u64::MAX);
            if end > now {
                let there = best.entry(*name).or_insert(end);
                *there = (*there).max(end);
            }
        }
        for identity in 0..3 {
            for number in 0..20 {
                let name = name(identity, number);
                let end = index.found(&name, wall).map(|found| {
                    found.expires.map_or(u64::MAX, |at| at.0 / 1000)
                });
                prop_assert_eq!(end, best.get(&name).copied());
                prop_assert_eq!(index.find(&name, wall).is_some(), end.is_some());
            }
        }
        prop_assert_eq!(index.totals().0, known.len() as u64);
        let mut visited = all(&index, wall, 3);
        visited.sort();
        let mut expected: Vec<Name> = best.into_keys().collect();
        expected.sort();
        prop_assert_eq!(visited, expected);
        let own: u64 = index.packs().map(|(_, pack)| pack.size).sum();
        prop_assert_eq!((index.known, index.own_bytes()), (packs.len() as u64, own));
        let listed: usize = packs.iter().map(|serial| index.listed(*serial).len()).sum();
        prop_assert_eq!(listed, places.len());
        for serial in packs {
            index.drop_pack(serial);
        }
        prop_assert_eq!((index.totals(), index.entries), ((0, 0), 0));
        prop_assert_eq!((index.known, index.own_bytes()), (0, 0));
        prop_assert_eq!(index.memory_bytes(), index.packs.len() as u64 * 8);
        prop_assert!(index.table.is_empty() && index.identities.is_empty());
    }
}
