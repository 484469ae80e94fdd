//! Two hosts as network namespaces with the cable cut and healed, over the tcp fabric.
//!
//! Every transfer ends by its deadline in one outcome, no byte lands where or when it must not, and
//! once the cable is whole traffic goes on without a restart. `make test-netns` runs these: they
//! need root.

use serde_json::Value;
use tranship_tests::netns::{Hosts, Node, SLOTS, tell};

const PEER: &str = env!("CARGO_BIN_EXE_netns-peer");
const LISTEN: &str = "10.231.0.2:7420";
/// How late an end may be seen on a busy machine.
const LATE_MS_MAX: u64 = 1500;
/// How often a round is tried before the way is said to stay broken.
const TRIES: u32 = 4;

fn number(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

/// A receiver on the second host, a sender on the first, and whole rounds between them.
fn connected(hosts: &Hosts) -> (Node, Node) {
    let mut receiver = Node::start(hosts.command(1, PEER), Some(LISTEN));
    let mut sender = Node::start(hosts.command(0, PEER), None);
    let target = open(&mut receiver);
    sender.ask(&format!("target {target}"));
    let told = sender_rounds(&mut sender, 2);
    let round = number(&told, "round");
    receiver.ask(&format!("check 0 {round}"));
    assert_eq!(arrivals(&mut receiver), 2 * SLOTS as u64);
    (receiver, sender)
}

/// Rounds over all slots, each transfer of which must be done.
fn sender_rounds(sender: &mut Node, rounds: u32) -> Value {
    sender.tell(&format!("write {rounds} 60 10000"));
    assert_eq!(sender.answer(), "begun");
    let told = sender.answer();
    assert_eq!(number(&told, "done"), u64::from(rounds) * SLOTS as u64, "{told}");
    told
}

/// A window, as it is handed over.
fn open(receiver: &mut Node) -> String {
    receiver.ask("open").as_str().expect("a text").to_owned()
}

fn arrivals(receiver: &mut Node) -> u64 {
    receiver.ask("arrivals 0").as_u64().expect("a number")
}

/// Writes until `break_it` has broken the way; how the transfers ended.
fn broken_while_writing(sender: &mut Node, break_it: impl FnOnce()) -> Value {
    sender.tell("write 1000000 30 2000");
    assert_eq!(sender.answer(), "begun");
    break_it();
    let told = sender.answer();
    let ended_badly = ["rejected", "fenced", "lost"].map(|end| number(&told, end));
    assert!(ended_badly.iter().sum::<u64>() > 0, "nothing was under way: {told}");
    assert!(number(&told, "late_ms") <= LATE_MS_MAX, "ends after the deadline: {told}");
    told
}

/// All slots are written again over the healed way.
fn goes_on(receiver: &mut Node, sender: &mut Node, opened: u32) {
    let target = open(receiver);
    for attempt in 1.. {
        sender.tell(&format!("target {target}"));
        let aimed = sender.answer();
        if aimed.get("error").is_none() {
            sender.tell("write 1 60 10000");
            let mut told = sender.answer();
            if told == "begun" {
                told = sender.answer();
            }
            if told["done"] == SLOTS {
                receiver.ask(&format!("check {opened} {}", number(&told, "round")));
                return;
            }
            tell(&format!("attempt {attempt}: {told}"));
        }
        assert!(attempt < TRIES, "the way stays broken: {aimed}");
        proves(sender);
    }
}

/// What was lost is proven to move no byte any more.
fn proves(sender: &mut Node) {
    let told = sender.ask("prove");
    assert_eq!(number(&told, "unproven"), 0, "{told}");
}

/// Cut in the middle of writes, fenced on the one side while cut, and healed.
fn story(cut: impl FnOnce(&Hosts), heal: impl FnOnce(&Hosts)) {
    let Some(hosts) = Hosts::new() else { return };
    let (mut receiver, mut sender) = connected(&hosts);
    let before = arrivals(&mut receiver);
    let told = broken_while_writing(&mut sender, || cut(&hosts));
    receiver.ask("check 0");
    let fenced = receiver.ask("revoke 0");
    tell(&format!("{told} {fenced}"));
    heal(&hosts);
    proves(&mut sender);
    goes_on(&mut receiver, &mut sender, 1);
    // Nothing that was still on its way came after the fence.
    receiver.ask("check 0 reused");
    let ends = ["done", "rejected", "fenced", "lost"].map(|end| number(&told, end));
    let arrived = arrivals(&mut receiver) - before;
    let possible = ends[0]..=ends[0] + ends[2] + ends[3];
    assert!(possible.contains(&arrived), "{arrived} arrivals of {told}");
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_cable_is_cut_and_healed() {
    story(Hosts::cut, Hosts::heal);
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_the_sender_says_is_lost_in_silence() {
    story(|hosts| hosts.silence(0), |hosts| hosts.unsilence(0));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn what_the_receiver_says_is_lost_in_silence() {
    story(|hosts| hosts.silence(1), |hosts| hosts.unsilence(1));
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_cable_is_cut_again_and_again() {
    let Some(hosts) = Hosts::new() else { return };
    let (mut receiver, mut sender) = connected(&hosts);
    for again in 1..=3 {
        broken_while_writing(&mut sender, || hosts.cut());
        hosts.heal();
        proves(&mut sender);
        goes_on(&mut receiver, &mut sender, again);
    }
}

#[test]
#[ignore = "needs root: make test-netns"]
fn the_peer_dies_behind_the_cut_and_another_comes() {
    let Some(hosts) = Hosts::new() else { return };
    let (receiver, mut sender) = connected(&hosts);
    broken_while_writing(&mut sender, || hosts.cut());
    drop(receiver);
    hosts.heal();
    // At the same address, and no other address proves that the first is gone.
    let mut another = Node::start(hosts.command(1, PEER), Some(LISTEN));
    proves(&mut sender);
    goes_on(&mut another, &mut sender, 0);
}
