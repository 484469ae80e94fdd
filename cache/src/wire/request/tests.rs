//! Every request on the wire, whole, cut and spoilt.

use proptest::prelude::*;
use tranship_transport::{Access, Address, EngineId, Kind, Route, WindowId};

use super::*;
use crate::identity::IdentityId;
use crate::tier::Tier;
use crate::wire::VERSION;

fn key() -> impl Strategy<Value = Key> {
    any::<[u8; KEY_BYTES]>().prop_map(Key::from_bytes)
}

fn some_keys() -> impl Strategy<Value = Vec<Key>> {
    proptest::collection::vec(key(), 0..20)
}

fn link() -> impl Strategy<Value = Link> {
    (key(), proptest::option::of(key()), any::<u32>()).prop_map(|(key, parent, position)| Link {
        key,
        parent,
        position,
    })
}

fn puts() -> impl Strategy<Value = Request> {
    let route = (0..90u32, any::<(u64, u64)>()).prop_map(|(n, (key, base))| {
        let kinds = [Kind::Tcp, Kind::Shm, Kind::Verbs, Kind::Ofi];
        let address = Address::new(kinds[n as usize % kinds.len()], format!("h:{n}"));
        Route { address, key, base }
    });
    let routes = proptest::collection::vec(route, 0..4);
    let sources = proptest::collection::vec(any::<(u64, u64, u64)>(), 0..20);
    (any::<(u128, u32, u32, u64, u32)>(), routes, sources).prop_map(|(raw, routes, sources)| {
        let (engine, slot, generation, len, deadline_ms) = raw;
        let (engine, access) = (EngineId(engine), Access::READ);
        let window = WindowId { slot, generation };
        let window = Descriptor { engine, window, len, access, routes };
        let source = |(reservation, checksum, offset)| Source { reservation, checksum, offset };
        let blocks = sources.into_iter().map(source).collect();
        Request::Put(Put { deadline_ms, window, blocks })
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let pairs = || proptest::collection::vec(any::<(u64, u64)>(), 0..20);
    let item = (link(), any::<u64>()).prop_map(|(link, len)| Item { link, len });
    prop_oneof![
        (".{0,40}", ".{0,40}", ".{0,40}").prop_map(|(name, tenant, token)| {
            Request::Hello(Hello { version: VERSION, name, tenant, token })
        }),
        proptest::collection::vec(any::<u8>(), 0..100)
            .prop_map(|identity| Request::Identify { identity }),
        (any::<u32>(), some_keys()).prop_map(|(scope, keys)| Request::Lookup { scope, keys }),
        (any::<u32>(), any::<u32>(), any::<u64>(), proptest::collection::vec(item, 0..20))
            .prop_map(|(scope, deadline_ms, ttl_ms, items)| {
                Request::Reserve { scope, deadline_ms, ttl_ms, items }
            }),
        pairs().prop_map(|blocks| Request::Commit { blocks }),
        puts(),
        (any::<u32>(), any::<u32>(), any::<u32>(), some_keys()).prop_map(
            |(scope, wait_ms, ttl_ms, keys)| Request::Lease { scope, wait_ms, ttl_ms, keys }
        ),
        proptest::collection::vec(any::<u64>(), 0..9)
            .prop_map(|leases| Request::Release { leases }),
        (any::<u32>(), key(), any::<u64>()).prop_map(|(scope, key, generation)| Request::Corrupt {
            scope,
            key,
            generation
        }),
        (any::<u32>(), any::<bool>(), some_keys()).prop_map(|(scope, pin, keys)| Request::Pin {
            scope,
            pin,
            keys
        }),
        (any::<u32>(), some_keys()).prop_map(|(scope, keys)| Request::Prefetch { scope, keys }),
        (any::<u32>(), any::<u32>(), some_keys())
            .prop_map(|(scope, wait_ms, keys)| Request::Persist { scope, wait_ms, keys }),
        (any::<(u32, u32, u32)>(), proptest::collection::vec((key(), any::<(u64, u64)>()), 0..9))
            .prop_map(|((scope, wait_ms, ttl_ms), parts)| {
                let part =
                    |(key, (a, b)): (Key, (u64, u64))| Part { key, start: a.min(b), end: a.max(b) };
                let parts = parts.into_iter().map(part).collect();
                Request::LeaseParts { scope, wait_ms, ttl_ms, parts }
            }),
        Just(Request::Stats),
        (key(), key(), any::<u64>(), 0..3usize, 0..8u8, ".{0,40}").prop_map(
            |(id, key, from, tier, tiers, prefix)| {
                let (identity, tier) = (IdentityId::from_bytes(*id.as_bytes()), Tier::ALL[tier]);
                let start = Place { tier, identity, key, from };
                Request::List { start, tiers: Tiers::from_bits(tiers).unwrap(), prefix }
            }
        ),
        any::<u64>().prop_map(|from| Request::Subscribe { from }),
        Just(Request::Ping),
    ]
}

proptest! {
    #[test]
    fn every_request_survives_the_wire(id: u32, request in requests()) {
        let bytes = request.encode(id);
        prop_assert_eq!(Request::decode(&bytes).unwrap(), (id, request));
    }

    #[test]
    fn every_truncation_is_refused(request in requests(), cut in 0.0..1.0) {
        let bytes = request.encode(7);
        let cut = (bytes.len() as f64 * cut) as usize;
        prop_assert!(Request::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, kind in 0u8..23) {
        let _ = Request::decode(&bytes);
        let mut framed = vec![kind, 0, 0, 0, 1, 0, 0, 0];
        framed.extend(bytes);
        let _ = Request::decode(&framed);
    }
}

#[test]
fn another_version_is_understood_as_such() {
    let hello =
        Hello { version: VERSION + 1, name: "n".into(), tenant: "t".into(), token: String::new() };
    let (_, decoded) = Request::decode(&Request::Hello(hello).encode(1)).unwrap();
    assert!(matches!(decoded, Request::Hello(hello) if hello.version == VERSION + 1));
}

#[test]
fn a_huge_count_is_refused_before_anything_is_allocated() {
    let mut bytes = Request::Lookup { scope: 0, keys: vec![] }.encode(1);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let (request, error) = Request::decode(&bytes).unwrap_err();
    assert_eq!(request, Some(1));
    assert!(error.to_string().contains("keys"), "{error}");
}
