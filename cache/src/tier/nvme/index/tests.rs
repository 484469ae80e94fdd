use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn name(identity: u8, key: u16) -> Name {
    let mut bytes = [0; 16];
    bytes[3..5].copy_from_slice(&key.to_le_bytes());
    Name { identity: IdentityId::from_bytes([identity; 16]), key: Key::from_bytes(bytes) }
}

fn found(len: u64, hits: u8) -> Found {
    let expires = len.is_multiple_of(3).then_some(Wall((len + 1) * 1000));
    let mark = Mark { hits: hits.min(Mark::HITS_MAX), parent: hits.is_multiple_of(2) };
    Found { len, checksum: len.wrapping_mul(0xDEAD_BEEF_1234_5678), expires, mark }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u16, u32, u16, u64, u8),
    Remove(u8, u16),
    Clear(u8),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = || (0..3_u8, 0..300_u16);
    let step = prop_oneof![
        8 => (names(), any::<u32>(), 0..4096_u16, 0..1_u64 << 28, any::<u8>())
            .prop_map(|((id, key), page, head, len, hits)| Step::Insert(id, key, page, head, len, hits)),
        4 => names().prop_map(|(id, key)| Step::Remove(id, key)),
        1 => (0..3_u8).prop_map(Step::Clear),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn agrees_with_a_map(steps in steps()) {
        let mut index = Index::default();
        let mut model: BTreeMap<Name, (Place, Found)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(id, key, page, head, len, hits) => {
                    let (place, found) = (Place { page, head }, found(len, hits));
                    let before = index.insert(&name(id, key), place, &found).unwrap();
                    let other = model.insert(name(id, key), (place, found));
                    let before = before.map(|known| (known.place, known.found));
                    prop_assert_eq!(before, other);
                }
                Step::Remove(id, key) => {
                    let here = index.get(&name(id, key)).map(|known| index.remove(known.slot).place);
                    prop_assert_eq!(here, model.remove(&name(id, key)).map(|(place, _)| place));
                }
                Step::Clear(id) => {
                    let identity = name(id, 0).identity;
                    let some = model.keys().any(|name| name.identity == identity);
                    prop_assert_eq!(index.clear(&identity), some);
                    model.retain(|name, _| name.identity != identity);
                }
                Step::Sweep => {
                    for slot in 0..index.slots() {
                        if index.is_cleared(slot) {
                            index.remove(slot);
                        }
                    }
                    prop_assert!(!index.has_cleared());
                }
            }
            prop_assert_eq!(index.audit(), Ok(()));
        }
        let all = (0..index.slots()).filter_map(|slot| index.at(slot));
        let all: BTreeMap<_, _> = all.map(|(name, known)| (name, (known.place, known.found))).collect();
        prop_assert_eq!(all, model);
    }
}

#[test]
fn what_is_being_forgotten_is_not_found() {
    let mut index = Index::default();
    let (name, place) = (name(1, 1), Place { page: 5, head: 1 });
    index.insert(&name, place, &found(4, 0)).unwrap();
    index.bar(name);
    index.bar(name);
    assert_eq!(index.find(&name, Wall(0)), None);
    index.unbar(&name);
    assert_eq!(index.find(&name, Wall(0)), None);
    index.unbar(&name);
    assert!(index.find(&name, Wall(0)).is_some());
    index.bar_identity(name.identity);
    assert_eq!(index.find(&name, Wall(0)), None);
    index.unbar_identity(&name.identity);
    assert!(index.find(&name, Wall(0)).is_some());
}

#[test]
fn what_has_expired_is_not_found() {
    let mut index = Index::default();
    index.insert(&name(1, 1), Place { page: 5, head: 1 }, &found(3, 0)).unwrap();
    assert!(index.find(&name(1, 1), Wall(3999)).is_some());
    assert_eq!(index.find(&name(1, 1), Wall(4000)), None);
}
