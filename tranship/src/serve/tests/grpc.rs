//! The admin service over its UNIX socket.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tranship_cache::tier::Tier;
use tranship_cache::tier::cold::Health;
use tranship_tests::below::{self, Scripted};

use super::*;
use crate::serve::admin::pb::admin_client::AdminClient;
use crate::serve::admin::pb::event::Change;
use crate::serve::admin::{self, CallError, ConnectError, pb};
use crate::serve::runtime::Error;

async fn channel(daemon: &Daemon) -> Channel {
    let path = daemon.running.admin_socket().display().to_string();
    Endpoint::from_shared(format!("unix://{path}")).unwrap().connect().await.unwrap()
}

async fn client(daemon: &Daemon) -> AdminClient<Channel> {
    AdminClient::new(channel(daemon).await)
}

fn default() -> String {
    "default".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn figures_are_those_of_the_store() {
    let daemon = Daemon::start();
    let (scope, keys) = daemon.fill("llama", 3);
    scope.lookup(&keys, &mut Vec::new(), NOW);
    let mut client = client(&daemon).await;
    let stats = client.stats(pb::StatsRequest::default()).await.unwrap().into_inner();
    assert_eq!(stats.state(), pb::State::Serving);
    let [tenant] = &stats.tenants[..] else { panic!("{stats:?}") };
    let (counters, gauges) = (tenant.counters.as_ref().unwrap(), tenant.gauges.as_ref().unwrap());
    assert_eq!((counters.lookups, counters.hits[0].hits, counters.committed), (3, 3, 3));
    assert_eq!(gauges.resident.unwrap().blocks, 3);
    assert_eq!(stats.server.unwrap().requests[0].buckets[1].count, 9);

    let request = pb::IdentitiesRequest { tenant: default() };
    let identities = client.identities(request).await.unwrap().into_inner().identities;
    assert_eq!((identities[0].id.clone(), identities[0].salted), (scope.id().to_string(), false));
    let sessions = client.sessions(pb::SessionsRequest {}).await.unwrap().into_inner().sessions;
    assert_eq!((sessions[0].name.as_str(), sessions[0].connected_ms), ("engine-0", 4000));
    let version = client.version(pb::VersionRequest {}).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.pid), ("0.1.0", std::process::id()));
    let audit = client.audit(pb::AuditRequest {}).await.unwrap().into_inner();
    assert_eq!(audit.fault, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_show_every_block_once() {
    let daemon = Daemon::start();
    let (scope, keys) = daemon.fill("llama", 13);
    let (_, others) = daemon.fill("qwen", 8);
    scope.pin(&keys[..1]);
    let mut client = client(&daemon).await;
    for page_size in [1, 4, 13, 21, 1000] {
        let mut listed = BTreeSet::new();
        let mut request = pb::ListRequest { tenant: default(), page_size, ..Default::default() };
        loop {
            let page = client.list(request.clone()).await.unwrap().into_inner();
            assert!(page.blocks.len() <= page_size as usize);
            for block in page.blocks {
                assert_eq!((block.age_ms, block.bytes), (Some(4000), 5));
                assert_eq!(block.pinned, block.key == keys[0].to_string());
                assert!(listed.insert(block.key.clone()), "{} is listed twice", block.key);
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let all: BTreeSet<_> = keys.iter().chain(&others).map(Key::to_string).collect();
        assert_eq!(listed, all);
    }
    let key_prefix = keys[5].to_string()[..9].to_uppercase();
    let identity = scope.id().to_string();
    let request = pb::ListRequest { tenant: default(), identity, key_prefix, ..Default::default() };
    let page = client.list(request).await.unwrap().into_inner();
    let [block] = &page.blocks[..] else { panic!("{page:?}") };
    assert_eq!((&block.key, block.position), (&keys[5].to_string(), Some(5)));
    assert_eq!(block.parent, keys[4].to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn blocks_leave_as_asked() {
    let daemon = Daemon::start();
    let (scope, keys) = daemon.fill("llama", 10);
    let identity = scope.id().to_string();
    let mut client = client(&daemon).await;

    let request = pb::EvictRequest { tenant: default(), bytes: 1 };
    let freed = client.evict(request).await.unwrap().into_inner().freed_bytes;
    assert_eq!(freed, 4096, "one granule, that of the last block");
    assert!(scope.info(keys[9]).is_none() && scope.info(keys[8]).is_some());

    let tenant = default();
    let gone = keys[..3].iter().chain(&keys[9..]).map(Key::to_string).collect();
    let request =
        pb::RemoveRequest { tenant, identity: identity.clone(), keys: gone, ..Default::default() };
    assert_eq!(client.remove(request).await.unwrap().into_inner().removed, 3);

    let request = pb::ClearRequest { tenant: default(), identity: identity.clone() };
    assert_eq!(client.clear(request).await.unwrap().into_inner().removed, 6);
    let request = pb::RemoveRequest {
        tenant: default(),
        identity,
        whole_identity: true,
        ..Default::default()
    };
    assert_eq!(client.remove(request).await.unwrap().into_inner().removed, 0);
    assert!(daemon.tenant().scopes().is_empty());
    daemon.store.audit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refusals_say_what_there_is() {
    let daemon = Daemon::start();
    let (scope, _) = daemon.fill("llama", 1);
    let mut client = client(&daemon).await;
    let mut list = async |request: pb::ListRequest| {
        let status = client.list(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let all = pb::ListRequest { tenant: default(), ..Default::default() };

    let (code, told) = list(pb::ListRequest { tenant: "prod".into(), ..all.clone() }).await;
    assert_eq!((code, told.as_str()), (Code::NotFound, r#"no tenant "prod"; there are "default""#));
    let (code, told) = list(pb::ListRequest::default()).await;
    assert_eq!((code, told.contains(r#"name one of "default""#)), (Code::InvalidArgument, true));
    let (code, told) = list(pb::ListRequest { identity: "0".repeat(32), ..all.clone() }).await;
    assert!(told.contains(&format!("there are {} (llama)", scope.id())), "{told}");
    assert_eq!(code, Code::NotFound);
    let bad = [
        pb::ListRequest { identity: "llama".into(), ..all.clone() },
        pb::ListRequest { key_prefix: "0x1".into(), ..all.clone() },
        pb::ListRequest { key_prefix: "0".repeat(33), ..all.clone() },
        pb::ListRequest { page_token: "next".into(), ..all.clone() },
        pb::ListRequest { page_token: format!("dram.{}.-1", scope.id()), ..all.clone() },
        pb::ListRequest { tiers: vec!["hbm".into()], ..all },
    ];
    for request in bad {
        assert_eq!(list(request).await.0, Code::InvalidArgument);
    }

    let evict = pb::EvictRequest { tenant: default(), bytes: 0 };
    assert_eq!(client.evict(evict).await.unwrap_err().code(), Code::InvalidArgument);
    let identity = scope.id().to_string();
    let mut remove = pb::RemoveRequest { tenant: default(), identity, ..Default::default() };
    let told = client.remove(remove.clone()).await.unwrap_err();
    assert_eq!(told.message(), "give either keys or whole_identity");
    remove.keys = vec!["zz".into()];
    let told = client.remove(remove).await.unwrap_err();
    assert!(told.message().starts_with(r#"key "zz": "#), "{told}");
    let request = pb::SubscribeRequest { from_sequence: Some(99), tenant: String::new() };
    let told = client.subscribe(request).await.unwrap_err();
    assert_eq!(told.code(), Code::OutOfRange);
    assert!(told.message().contains("subscribe from 2"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_follows_draining_and_no_tier_below() {
    let nvme = Scripted::new(Tier::Nvme);
    nvme.is(Health::Off("gone".to_owned()));
    let daemon = Daemon::over(below::stack(&[nvme]), |_| {});
    let mut health = HealthClient::new(channel(&daemon).await);
    let mut client = client(&daemon).await;
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", admin::NAME] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    assert_eq!(health.check(ask("x")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let answer = client.drain(pb::DrainRequest { draining: true }).await.unwrap().into_inner();
    assert!(answer.draining && daemon.store.is_draining());
    let status = health.check(ask("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let stats = client.stats(pb::StatsRequest::default()).await.unwrap().into_inner();
    assert_eq!(stats.state(), pb::State::Draining);

    client.drain(pb::DrainRequest { draining: false }).await.unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reflection_names_the_services() {
    let daemon = Daemon::start();
    let mut client = ServerReflectionClient::new(channel(&daemon).await);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer: ServerReflectionResponse = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: BTreeSet<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.is_superset(&[admin::NAME, "grpc.health.v1.Health"].into()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn changes_are_told_with_gaps() {
    let daemon = Daemon::start();
    let other = open_tenant(&daemon.store, "other");
    let mut client = client(&daemon).await;
    let request = pb::SubscribeRequest { from_sequence: None, tenant: default() };
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.events.len(), first.next_sequence), (0, 1));

    let quiet = register(&other, "m");
    commit(&quiet, Chain::new(quiet.identity()).push(b"not followed"));
    let (scope, keys) = daemon.fill("llama", 2);
    scope.remove(&keys[1..]);
    scope.clear();
    let mut events = Vec::new();
    while events.len() < 4 {
        events.extend(stream.message().await.unwrap().unwrap().events);
    }
    assert!(events.iter().all(|event| event.tenant == "default"));
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let changes: Vec<_> = events.into_iter().map(|event| event.change.unwrap()).collect();
    let [Change::Stored(a), Change::Stored(b), Change::Removed(gone), Change::Cleared(_)] =
        &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((a.key.clone(), b.parent.clone(), b.bytes), (keys[0].to_string(), a.key.clone(), 5));
    assert_eq!((gone.reason.as_str(), gone.tier.as_str()), ("removed", "dram"));

    // The ring keeps 16; whoever comes back after more is told what is missing.
    daemon.fill("qwen", 20);
    let request = pb::SubscribeRequest { from_sequence: Some(2), tenant: String::new() };
    let mut late = client.subscribe(request).await.unwrap().into_inner();
    let batch = late.message().await.unwrap().unwrap();
    assert_eq!(batch.gap, Some(pb::Gap { from: 2, to: 9 }));
    assert_eq!((batch.events[0].sequence, batch.next_sequence), (10, 26));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_ends_at_its_deadline_and_others_go_on() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let daemon = Daemon::observed(|observe| {
        let gate = Arc::clone(&gate);
        observe.now = Arc::new(move || {
            // Fails at once when the gate stands open for good.
            let _ = gate.lock().unwrap().recv();
            NOW
        });
    });
    let mut client = client(&daemon).await;
    let mut request = Request::new(pb::ListRequest { tenant: default(), ..Default::default() });
    request.set_timeout(Duration::from_millis(30));
    let status = client.list(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "Timeout expired"));
    client.version(pb::VersionRequest {}).await.unwrap();
    drop(open);
    client.list(pb::ListRequest { tenant: default(), ..Default::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn shutting_down_ends_streams_and_removes_the_socket() {
    let daemon = Daemon::start();
    let mut client = client(&daemon).await;
    let mut stream = client.subscribe(pb::SubscribeRequest::default()).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    let path = daemon.running.admin_socket().to_owned();
    let running = daemon.running;
    let end = tokio::task::spawn_blocking(move || running.shutdown(PATIENCE));
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the daemon stops"));
    end.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn commands_call_without_being_asynchronous() {
    let daemon = Daemon::start();
    daemon.fill("llama", 2);
    let path = daemon.running.admin_socket().to_owned();
    let mut client: admin::Client = admin::connect(&path, PATIENCE).unwrap();
    let stats = client
        .call(pb::StatsRequest::default(), async |admin, request| admin.stats(request).await)
        .unwrap();
    assert_eq!(stats.tenants[0].counters.as_ref().unwrap().committed, 2);
    let unknown = pb::StatsRequest { tenant: "x".into() };
    let error = client.call(unknown, async |admin, request| admin.stats(request).await);
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)));
    assert_eq!(error.to_string(), r#"no tenant "x"; there are "default""#);

    // The client stays connected, which must not keep the daemon.
    daemon.running.shutdown(PATIENCE).unwrap();
    let error = client.call(pb::VersionRequest {}, async |admin, ask| admin.version(ask).await);
    assert!(matches!(error, Err(CallError::Gone(_))), "{error:?}");
    let Err(error) = admin::connect(&path, PATIENCE) else { panic!("connected to nobody") };
    assert!(matches!(error, ConnectError::NoDaemon(_)), "{error}");
    assert!(error.to_string().contains("start one with `tranship serve`"), "{error}");
}

#[test]
fn a_second_daemon_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.running.admin_socket().to_owned();
    let error = run(observe(&daemon.store), &options(path.clone())).unwrap_err();
    assert!(matches!(error, Error::Socket(_)));
    assert!(error.to_string().contains("another daemon listens here"), "{error}");
    let long = daemon.dir.path().join("x".repeat(120));
    let error = run(observe(&daemon.store), &options(long)).unwrap_err();
    assert!(error.to_string().contains("is too long, 107 are possible"), "{error}");
    assert!(path.exists(), "the first daemon's socket stays");
}
