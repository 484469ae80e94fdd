//! Bad input against real libibverbs: each is refused in one line that names the thing, the limit and the remedy,
//! and nothing else is disturbed. For the virtual machine: see `verbs_kit`.

mod dma_bufs;
#[path = "../verbs_kit/mod.rs"]
mod verbs_kit;

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tranship_transport::fabric::tcp;
use tranship_transport::fabric::verbs::{Config, Door, Place};
use tranship_transport::{
    Access, Counter, Engine, HostMemory, Outcome, PeerError, Reason, Region, RegionError,
    RemoteWindow, Window,
};
use verbs_kit::{AMPLE, BYTES, Pair, calm, can_run, config, fill, sh, write_all};

// ---- what is said ------------------------------------------------------------------------------

static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Keeps what the fabrics log, from the first call on.
fn listen() {
    struct Kept;
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            SAID.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(|| Kept)
            .init();
    });
}

/// All lines of the log that contain this.
fn said(what: &str) -> Vec<String> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said);
    said.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}

/// One line that has all of these in it.
fn is_one_line(line: &str, parts: &[&str]) {
    let _ = writeln!(std::io::stderr(), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    for part in parts {
        assert!(line.contains(part), "no '{part}' in: {line}");
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < AMPLE, "{what}: not within {AMPLE:?}");
        std::thread::yield_now();
    }
}

/// Why a fabric is not opened.
fn refusal(config: Config) -> String {
    let error = Engine::builder().fabric(config).build().expect_err("it cannot be opened");
    error.to_string()
}

fn port_state(device: &str) -> String {
    let path = format!("/sys/class/infiniband/{device}/ports/1/state");
    std::fs::read_to_string(path).expect("a device")
}

// ---- those who have nothing to do with it --------------------------------------------------------

/// A connection that works, whatever others are refused.
struct Other {
    pair: Pair,
    counter: Counter,
    to: RemoteWindow,
    _window: Window,
    rounds: u64,
}

impl Other {
    fn new(pair: Pair) -> Self {
        let counter = pair.b.counter().unwrap();
        let (window, to) = pair.offer();
        let mut other = Self { pair, counter, to, _window: window, rounds: 0 };
        other.goes_on();
        other
    }

    /// Every byte crosses, by a rail.
    fn goes_on(&mut self) {
        self.rounds += 1;
        self.pair.round(&self.to, 1000 + self.rounds, &self.counter, || {});
        assert_eq!(self.pair.a.stats().fallbacks, 0, "by a rail");
    }
}

/// The first of a region's bytes.
fn contents(region: &Region) -> Vec<u8> {
    let mut bytes = vec![0; BYTES as usize];
    region.memory().read_at(0, &mut bytes).unwrap();
    bytes
}

/// Packets that a device has sent.
fn sent(device: &str) -> u64 {
    let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/sent_pkts");
    std::fs::read_to_string(path).expect("a counter").trim().parse().expect("a number")
}

// ---- ports and addresses -------------------------------------------------------------------------

#[test]
fn a_port_that_is_down_is_named_and_the_others_are_used() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::of(config(&["rxec"]), config(&["rxed"])));
    sh("ip link set va down");
    for device in ["rxea", "rxeb"] {
        until("the port is down", || port_state(device).contains("DOWN"));
    }
    let remedy = "plug in the cable, and bring the interface up (ip link set dev NAME up)";
    let line = refusal(config(&["rxea"]));
    is_one_line(&line, &["verbs fabric: rxea:1: the port is down", remedy]);
    other.goes_on();

    // One of two: the other rail is used, and that one is missing is said once by either side.
    let half = Other::new(Pair::of(config(&["rxea", "rxec"]), config(&["rxeb", "rxed"])));
    for device in ["rxea:1", "rxeb:1"] {
        let lines = said(&format!("no rail, until the fabric is opened again: {device}: "));
        assert_eq!(lines.len(), 1, "{lines:?}");
        is_one_line(&lines[0], &["WARN", "the port is down", remedy]);
    }
    drop(half);
    other.goes_on();

    // All: one line names them, with one remedy.
    sh("ip link set vc down");
    until("the port is down", || port_state("rxed").contains("DOWN"));
    let line = refusal(Config::new());
    is_one_line(&line, &["rxea:1, rxeb:1, rxec:1, rxed:1: the port is down", remedy]);
    assert_eq!(line.matches("plug in").count(), 1, "{line}");
    calm();
    until("the ports are up", || port_state("rxea").contains("ACTIVE"));
    Other::new(Pair::new());
}

#[test]
fn an_address_that_is_not_there_is_named() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::new());
    let line = refusal(config(&["rxea"]).gid_index(77));
    is_one_line(
        &line,
        &["rxea:1: no GID with index 77; there are 0 RoCE v2 fe80::", "1 RoCE v2 10.8.0.1"],
    );
    let line = refusal(config(&["rxez"]));
    is_one_line(&line, &["no device is called rxez", "rxea", "rxeb", "rxec", "rxed"]);
    let line = refusal(config(&["rxea:2"]));
    is_one_line(&line, &["no device is called rxea:2"]);
    other.goes_on();
}

/// Every RoCE device has an address that its interface made up; without one of its own, no route leads there.
#[test]
fn an_interface_without_an_address_is_no_way_and_says_why() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::new());
    sh("ip link add vi type veth peer name vj
        for end in i j; do
            ip link set dev v$end addrgenmode none
            ip link set dev v$end up
            rdma link add rxe$end type rxe netdev v$end
        done");
    let pair = Pair::of(config(&["rxei"]), config(&["rxej"]));
    let counter = pair.b.counter().unwrap();
    let (window, to) = pair.offer();
    pair.round(&to, 1, &counter, || {});
    assert_eq!(pair.a.stats().fallbacks, 1, "there is no rail");
    let lines = said("no path: connecting RoCE v2 fe80::");
    let remedy = "give both interfaces an IP address (ip addr add …)";
    is_one_line(lines.first().expect("it is said"), &["rail=\"rxe", "ibv_modify_qp", remedy]);
    other.goes_on();
    // A device goes once nobody has it open.
    drop((window, to, counter, pair));
    sh("rdma link del rxei; rdma link del rxej; ip link del vi");
}

// ---- limits ----------------------------------------------------------------------------------------

/// Runs on a thread that may lock no more than `bytes` of memory, in all of this process.
fn locked_in<T: Send>(bytes: u64, what: impl FnOnce() -> T + Send) -> T {
    let before = getrlimit(Resource::Memlock);
    let maximum = before.maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum }).unwrap();
    let run = || {
        // Root may lock as much as it likes.
        let mut mine = capabilities(None).unwrap();
        mine.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, mine).unwrap();
        what()
    };
    let it = std::thread::scope(|scope| scope.spawn(run).join());
    setrlimit(Resource::Memlock, before).unwrap();
    it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn memory_that_may_not_be_locked_is_refused_with_the_limit() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::of(config(&["rxec"]), config(&["rxed"])));
    let remedy = "`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service's unit, raises it";
    let line = locked_in(8192, || refusal(config(&["rxea"])));
    is_one_line(&line, &["rxea:1: ibv_reg_mr", "may be locked: 8192 bytes", remedy]);
    other.goes_on();

    let limit = 64 << 20;
    locked_in(limit, || {
        let pair = Pair::of(config(&["rxea"]), config(&["rxeb"]).memory_windows(false));
        let error = pair.a.alloc(HostMemory::new(128 << 20)).expect_err("beyond the limit");
        assert!(matches!(error, RegionError::Fabric { .. }));
        let parts = ["rxea:1: ibv_reg_mr of 134217728 bytes", "may be locked: 67108864 bytes"];
        is_one_line(&error.to_string(), &[&parts[..], &[remedy]].concat());
        // What fits is taken, and works.
        let counter = pair.b.counter().unwrap();
        let (_window, to) = pair.offer();
        pair.round(&to, 1, &counter, || {});
        assert_eq!(pair.a.stats().fallbacks, 0);
        // A region fits, and what is registered to show it to the peer does not: payload goes over TCP.
        let target = pair.b.alloc(HostMemory::new(40 << 20)).unwrap();
        let window = target.window_with(0..40 << 20, Access::WRITE).unwrap();
        let to = pair.a.open(&window.descriptor()).unwrap();
        let bytes = fill(&pair.source, 2);
        let before = counter.count();
        let sent = write_all(&pair.a, &pair.source, &to, &counter, AMPLE);
        sent.iter().for_each(|it| assert_eq!(it.wait(), Outcome::Done));
        counter.wait(before + sent.len() as u64, AMPLE).unwrap();
        assert!(contents(&target) == bytes, "other bytes");
    });
    let lines = said("not shown to a peer");
    assert_eq!(lines.len(), 1, "{lines:?}");
    is_one_line(&lines[0], &["rxeb:1", "ibv_reg_mr", "may be locked: 67108864 bytes", remedy]);
    other.goes_on();
}

// ---- what two ends do not agree on -------------------------------------------------------------------

#[test]
fn of_two_mtus_the_smaller_is_used_and_said() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::of(config(&["rxec"]), config(&["rxed"])));
    sh("ip link set vb mtu 1500");
    let mut pair = Other::new(Pair::of(config(&["rxea"]), config(&["rxeb"])));
    for (device, ours, theirs) in [("rxea:1", 4096, 1024), ("rxeb:1", 1024, 4096)] {
        let lines = said("MTU 1024, the smaller");
        let mine: Vec<_> = lines.iter().filter(|line| line.contains(device)).collect();
        assert_eq!(mine.len(), 1, "{lines:?}");
        let both = format!("this port has {ours}, the peer's {theirs}");
        is_one_line(mine[0], &[&both, "ip link set dev NAME mtu"]);
    }
    let before = sent("rxea");
    pair.goes_on();
    let packets = sent("rxea") - before;
    assert!(packets >= BYTES / 1024, "{packets} packets: they are larger than the smaller MTU");
    // And the other way.
    let back = pair.pair.a.alloc(HostMemory::new(BYTES as usize)).unwrap();
    let read = pair.pair.a.read(pair.to.slice(0..BYTES).unwrap(), back.slice(0..BYTES).unwrap());
    assert_eq!(read.deadline(AMPLE).wait(), Outcome::Done);
    assert!(contents(&back) == pair.pair.landed(), "other bytes");
    assert_eq!(pair.pair.a.stats().fallbacks, 0, "by a rail");
    other.goes_on();
    sh("ip link set vb mtu 4200");
}

#[test]
fn a_wrong_token_is_refused_and_disturbs_nobody() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let with =
        |devices: &[&str], token: &str| config(devices).control(tcp::Config::new().token(token));
    let right = "swordfish";
    let pair = Pair::of(with(&["rxea", "rxec"], right), with(&["rxeb", "rxed"], right));
    let mut other = Other::new(pair);
    let to = other.pair.b.addresses()[0].clone();
    for token in ["guess", ""] {
        let stranger = Engine::builder().fabric(with(&["rxea", "rxec"], token)).build().unwrap();
        let error = stranger.connect(&to, AMPLE).expect_err("it does not know the token");
        assert!(matches!(error, PeerError::Refused { why: Reason::Unauthorised, .. }), "{error}");
        is_one_line(&error.to_string(), &[&to.to_string(), "the peer refuses the token"]);
        other.goes_on();
    }
    assert!(said("path up").len() <= 4, "a stranger gets no channel");
}

#[test]
fn a_peer_of_another_version_has_no_rails_and_says_so() {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let mut other = Other::new(Pair::new());
    let rails = [config(&["rxea", "rxec"]), config(&["rxeb", "rxed"])];
    for (dialler, acceptor) in [(2, 1), (1, 2)] {
        let before = said("no rails").len();
        let [a, b] = rails.clone();
        let pair = Pair::of(a.words_version(dialler), b.words_version(acceptor));
        let counter = pair.b.counter().unwrap();
        let (_window, to) = pair.offer();
        pair.round(&to, u64::from(dialler), &counter, || {});
        assert_eq!(pair.a.stats().fallbacks, 1, "payload goes over TCP");
        let lines = said("no rails");
        assert_eq!(lines.len() - before, 2, "once by either side: {lines:?}");
        for (own, theirs) in [(dialler, acceptor), (acceptor, dialler)] {
            let both = format!(
                "the peer speaks version {theirs} of the words between fabrics, this engine {own}"
            );
            let line =
                lines[before..].iter().find(|line| line.contains(&both)).expect("it is said");
            is_one_line(line, &["WARN", "upgrade the older"]);
        }
        other.goes_on();
    }
}

// ---- keys --------------------------------------------------------------------------------------------

/// What nobody but this test writes.
const WORD: u64 = 0x5eed_5eed_5eed_5eed;

/// An engine whose requests the hardware itself has to refuse.
struct Forger {
    pair: Pair,
    door: Door,
    counter: Counter,
}

impl Forger {
    fn new(windows: bool) -> Self {
        let door = Door::default();
        let a = config(&["rxea"]).door(&door);
        let pair = Pair::of(a, config(&["rxeb"]).memory_windows(windows));
        let counter = pair.b.counter().unwrap();
        Self { pair, door, counter }
    }

    /// Writes by a rail, once there is one whose key is not `old`; where that went.
    fn place(&self, to: &RemoteWindow, old: Option<Place>) -> Place {
        let mut seed = 1;
        until("a rail to the window", || {
            self.pair.round(to, seed, &self.counter, || {});
            seed += 1;
            let seen = self.door.seen();
            seen.is_some() && seen.map(|it| it.key) != old.map(|it| it.key)
        });
        self.door.seen().expect("just seen")
    }

    fn post(&self, place: Place) {
        self.door.write(place, WORD);
        until("the word is posted", || {
            self.pair.a.progress();
            self.door.waiting() == 0
        });
    }

    /// The hardware refuses, and not a byte changes.
    fn is_refused(&self, place: Place) {
        let what = "path down: a request failed: remote access error (the key opens nothing there)";
        let (before, lines) = (self.pair.landed(), said(what).len());
        self.post(place);
        until("the hardware refuses", || {
            self.pair.a.progress();
            said(what).len() > lines
        });
        assert!(self.pair.landed() == before, "it was written with {place:?}");
    }
}

fn forged_and_stale(windows: bool, bits: &[u32]) {
    if !can_run() {
        return;
    }
    listen();
    calm();
    let forger = Forger::new(windows);
    // Over the same devices, and with windows of the same engine.
    let third_door = Door::default();
    let third = config(&["rxea", "rxec"]).door(&third_door);
    let third = Engine::builder().fabric(third).build().unwrap();
    let own = forger.pair.b.alloc(HostMemory::new(BYTES as usize)).unwrap();
    let own_window = own.window_with(0..BYTES, Access::WRITE).unwrap();
    let own_to = third.open(&own_window.descriptor()).unwrap();
    let own_counter = forger.pair.b.counter().unwrap();
    let source = third.alloc(HostMemory::new(BYTES as usize)).unwrap();
    let goes_on = |seed: u64| {
        let bytes = fill(&source, seed);
        let before = own_counter.count();
        let sent = write_all(&third, &source, &own_to, &own_counter, AMPLE);
        sent.iter().for_each(|it| assert_eq!(it.wait(), Outcome::Done));
        own_counter.wait(before + sent.len() as u64, AMPLE).unwrap();
        assert!(contents(&own) == bytes, "other bytes");
        assert_eq!(third.stats().fallbacks, 0, "by a rail");
    };
    let (window, to) = forger.pair.offer();
    let mut place = forger.place(&to, None);
    // The way is one that works: with the right key the word arrives.
    forger.post(place);
    let at = place.address - forger.pair.target.memory().as_ptr() as u64;
    let at = at as usize..at as usize + 8;
    until("the word arrives", || {
        forger.pair.a.progress();
        forger.pair.landed()[at.clone()] == WORD.to_le_bytes()
    });
    goes_on(1);
    if windows {
        // A key that is right, and that of another's queue pair.
        let before = contents(&own);
        forger.is_refused(third_door.seen().expect("it has written"));
        assert!(contents(&own) == before, "it was written with another's key");
        place = forger.place(&to, Some(place));
    }
    for bit in bits {
        forger.pair.target.memory().fill(0..BYTES as usize, 0xC5).unwrap();
        forger.is_refused(Place { key: place.key ^ 1 << bit, ..place });
        goes_on(10 + u64::from(*bit));
        place = forger.place(&to, Some(place));
    }

    // Revoked, and the same pages granted again.
    window.revoke_within(AMPLE).unwrap();
    forger.pair.target.memory().fill(0..BYTES as usize, 0xC5).unwrap();
    forger.is_refused(place);
    let (_window, to) = forger.pair.offer();
    forger.place(&to, Some(place));
    forger.pair.target.memory().fill(0..BYTES as usize, 0xC5).unwrap();
    forger.is_refused(place);
    goes_on(2);
    forger.place(&to, None);
}

#[test]
fn a_forged_or_stale_key_of_a_memory_window_opens_nothing() {
    forged_and_stale(true, &(0..32).collect::<Vec<_>>());
}

#[test]
fn a_forged_or_stale_key_of_a_registration_opens_nothing() {
    forged_and_stale(false, &[0, 3, 7, 8, 9, 15, 16, 23, 24, 31]);
}
