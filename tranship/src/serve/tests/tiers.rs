//! Tiers below memory, as administration shows them.

use std::collections::BTreeSet;

use tranship_cache::Link;
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::{Figures, Health, Record};
use tranship_tests::below::{self, Scripted};

use super::*;
use crate::serve::admin::{self, pb};

fn figures() -> Figures {
    Figures {
        blocks: 7,
        bytes: 35,
        capacity_bytes: 1 << 20,
        stored: 9,
        stored_bytes: 100,
        loaded: 4,
        device_written_bytes: 150,
        ..Figures::default()
    }
}

/// A daemon with one tier below memory, and its administration.
fn start() -> (Daemon, Arc<Scripted>, admin::Client) {
    let nvme = Scripted::new(Tier::Nvme);
    let daemon = Daemon::over(below::stack(&[Arc::clone(&nvme)]), |_| {});
    let client = admin::connect(&daemon.admin(), PATIENCE).unwrap();
    (daemon, nvme, client)
}

fn put_below(tier: &Scripted, scope: &Scope, key: Key) {
    let link = Link { key, parent: None, position: 0 };
    let (len, checksum) = (5, checksum(b"bytes"));
    tier.has(Record { identity: scope.id(), link, len, checksum, expires: None }, b"bytes");
}

#[test]
fn figures_and_states_are_told() {
    let (_daemon, nvme, mut client) = start();
    nvme.counts(figures());
    let mut ask = || {
        let request = pb::StatsRequest::default();
        let stats =
            client.call(request, async |admin, request| admin.stats(request).await).unwrap();
        let [tier] = &stats.tiers[..] else { panic!("{stats:?}") };
        tier.clone()
    };
    let tier = ask();
    assert_eq!(
        (tier.tier.as_str(), tier.state(), tier.reason.as_str()),
        ("nvme", pb::TierState::Ready, "")
    );
    assert_eq!((tier.blocks, tier.bytes, tier.capacity_bytes), (7, 35, 1 << 20));
    assert_eq!((tier.stored_bytes, tier.device_written_bytes, tier.loaded), (100, 150, 4));
    let states = [
        (Health::Degraded("slow".into()), pb::TierState::Degraded, "slow"),
        (Health::ReadOnly("full".into()), pb::TierState::ReadOnly, "full"),
        (Health::Off("gone".into()), pb::TierState::Off, "gone"),
    ];
    for (health, state, reason) in states {
        nvme.is(health);
        let tier = ask();
        assert_eq!((tier.state(), tier.reason.as_str()), (state, reason));
    }
}

#[test]
fn every_tier_is_listed_and_a_key_is_found_in_each() {
    let (daemon, nvme, mut client) = start();
    let (scope, keys) = daemon.fill("llama", 8);
    let cold: Vec<_> = (0..9u8).map(|n| Key::from_digest(&[n])).collect();
    cold.iter().chain(&keys[..2]).for_each(|key| put_below(&nvme, &scope, *key));
    let mut list = |request: &pb::ListRequest| {
        let (mut request, mut blocks) = (request.clone(), Vec::new());
        loop {
            let ask = request.clone();
            let page = client.call(ask, async |admin, request| admin.list(request).await).unwrap();
            blocks.extend(page.blocks.into_iter().map(|block| (block.tier, block.key)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return blocks;
            }
        }
    };
    let named = |tier: &str, keys: &[Key]| -> BTreeSet<_> {
        keys.iter().map(|key| (tier.to_owned(), key.to_string())).collect()
    };
    let dram = named("dram", &keys);
    let below = named("nvme", &[&cold[..], &keys[..2]].concat());
    for page_size in [1, 3, 100] {
        for (tiers, wanted) in [
            (vec![], dram.clone()),
            (vec!["dram"], dram.clone()),
            (vec!["nvme"], below.clone()),
            (vec!["object"], BTreeSet::new()),
            (vec!["dram", "nvme", "object"], &dram | &below),
        ] {
            let tiers: Vec<_> = tiers.into_iter().map(str::to_owned).collect();
            let tenant = "default".to_owned();
            let listed = list(&pb::ListRequest { tenant, page_size, tiers, ..Default::default() });
            assert_eq!(listed.len(), wanted.len(), "none twice");
            assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }
    let request = pb::ListRequest {
        tenant: "default".to_owned(),
        key_prefix: keys[0].to_string(),
        tiers: vec!["dram".to_owned(), "nvme".to_owned()],
        ..Default::default()
    };
    let tiers: Vec<_> = list(&request).into_iter().map(|(tier, _)| tier).collect();
    assert_eq!(tiers, ["dram", "nvme"], "the fastest first");
}

#[test]
fn blocks_below_memory_are_removed_too() {
    let (daemon, nvme, mut client) = start();
    let (scope, keys) = daemon.fill("llama", 2);
    let cold = Key::from_digest(b"cold");
    put_below(&nvme, &scope, cold);
    put_below(&nvme, &scope, keys[0]);
    let request = pb::RemoveRequest {
        tenant: "default".to_owned(),
        identity: scope.id().to_string(),
        keys: [cold, keys[0]].map(|key| key.to_string()).into(),
        ..Default::default()
    };
    let answer = client.call(request, async |admin, request| admin.remove(request).await).unwrap();
    assert_eq!(answer.removed, 2);
    let mut presence = Vec::new();
    assert_eq!(scope.lookup(&[cold, keys[0]], &mut presence, NOW).prefix, 0);
}
