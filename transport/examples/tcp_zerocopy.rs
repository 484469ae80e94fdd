//! What `MSG_ZEROCOPY` saves beside sends that copy, in one run, and whether the kernel copies all
//! the same: `cargo run --release -p tranship-transport --example tcp_zerocopy [loopback|netns]`.
//!
//! One process sends rounds of buffers to another, plain and zero-copy in turns: over the loopback
//! interface, or between two network namespaces that are joined by a veth pair (that takes root and
//! `ip` of iproute2). Processor time is that of both processes, by byte: what the kernel does for
//! one side is often done in the other's system calls. Of each send the kernel says afterwards
//! whether it copied after all (`SO_EE_CODE_ZEROCOPY_COPIED`). Medians of the rounds.
//!
//! Between two machines: `tcp_zerocopy receive HOST:PORT` there, `tcp_zerocopy send HOST:PORT` here.

#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Given to one system call, as the fabric does.
const CALL_BYTES: usize = 256 << 10;
const REGION_BYTES: usize = 64 << 20;
/// Of one round.
const ROUND_BYTES: usize = 1 << 30;
const ROUNDS: usize = 7;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of `linux/errqueue.h`.
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_COPIED: u8 = 1;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["loopback"] => both("127.0.0.1:0", &[], &[]),
        ["netns"] => between_namespaces(),
        ["receive", at] => receive(at),
        ["send", to] => send(to),
        _ => Err("usage: tcp_zerocopy [loopback|netns|receive HOST:PORT|send HOST:PORT]".into()),
    }
}

// ---- two processes -----------------------------------------------------------------------------

/// Ends with whoever started it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs both sides, each behind a command that puts it where it belongs.
fn both(at: &str, here: &[&str], there: &[&str]) -> Result<(), Failure> {
    let own = std::env::current_exe()?;
    let command = |prefix: &[&str], role: &str, address: &str| {
        let mut command = match prefix {
            [] => Command::new(&own),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&own);
                command
            }
        };
        command.args([role, address]);
        command
    };
    let receiver = command(there, "receive", at).stdout(Stdio::piped()).spawn()?;
    let mut receiver = Process(receiver);
    let mut address = String::new();
    let said = receiver.0.stdout.take().ok_or("no output")?;
    BufReader::new(said).read_line(&mut address)?;
    let status = command(here, "send", address.trim()).status()?;
    if status.success() { Ok(()) } else { Err(format!("the sender failed: {status}").into()) }
}

/// Two namespaces; they are gone when it is dropped.
struct Namespaces([String; 2]);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            // It may never have been made.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn between_namespaces() -> Result<(), Failure> {
    let name = |side| format!("zerocopy-{}-{side}", std::process::id());
    let namespaces = Namespaces([name("a"), name("b")]);
    let [a, b] = &namespaces.0;
    ip(&["netns", "add", a])?;
    ip(&["netns", "add", b])?;
    ip(&["-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b])?;
    for (name, address) in [(a, "10.232.0.1/24"), (b, "10.232.0.2/24")] {
        ip(&["-n", name, "address", "add", address, "dev", "cable"])?;
        ip(&["-n", name, "link", "set", "cable", "up"])?;
    }
    both("10.232.0.2:0", &["ip", "netns", "exec", a], &["ip", "netns", "exec", b])
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new("ip").args(arguments).status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {status}; it needs root and iproute2", arguments.join(" ")).into())
}

// ---- the receiver ------------------------------------------------------------------------------

/// Receives rounds and answers each with the processor time that it took, until the sender hangs up.
fn receive(at: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(at)?;
    println!("{}", listener.local_addr()?);
    let (mut socket, _) = listener.accept()?;
    let mut memory = vec![0; REGION_BYTES];
    loop {
        let before = processor_time()?;
        let mut got = 0;
        while got < ROUND_BYTES {
            let from = got % REGION_BYTES;
            let most = CALL_BYTES.min(ROUND_BYTES - got).min(REGION_BYTES - from);
            match socket.read(&mut memory[from..from + most])? {
                0 => return Ok(()),
                now => got += now,
            }
        }
        let took = processor_time()? - before;
        socket.write_all(&(took.as_nanos() as u64).to_le_bytes())?;
    }
}

// ---- the sender --------------------------------------------------------------------------------

/// What one round took.
#[derive(Clone, Copy)]
struct Round {
    took: Duration,
    /// Of both sides.
    processor: Duration,
}

impl Round {
    fn gb_per_s(self) -> f64 {
        ROUND_BYTES as f64 / self.took.as_nanos() as f64
    }

    /// Seconds of processor time for 10⁹ bytes.
    fn seconds_per_gb(self) -> f64 {
        self.processor.as_nanos() as f64 / ROUND_BYTES as f64
    }
}

/// What the kernel said of zero-copy sends.
#[derive(Default)]
struct Notices {
    sent: u32,
    /// Sends whose memory it has given back, and those of them that it copied.
    ended: u32,
    copied: u32,
    /// Sends that found no room for a notice.
    refused: u32,
}

impl Notices {
    fn take(&mut self, error: &libc::sock_extended_err) {
        if error.ee_errno != 0 || error.ee_origin != ORIGIN_ZEROCOPY {
            return;
        }
        // A range of sends, as the socket counts them.
        let count = error.ee_data.wrapping_sub(error.ee_info).wrapping_add(1);
        self.ended += count;
        if error.ee_code & CODE_COPIED != 0 {
            self.copied += count;
        }
    }
}

fn send(to: &str) -> Result<(), Failure> {
    let socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    set_zerocopy(&socket)?;
    let memory = vec![1; REGION_BYTES];
    let mut notices = Notices::default();
    let (mut plain, mut zero) = (Vec::new(), Vec::new());
    // The first of each is not measured.
    for round in 0..=ROUNDS {
        let one = one_round(&socket, &memory, None)?;
        let other = one_round(&socket, &memory, Some(&mut notices))?;
        if round > 0 {
            plain.push(one);
            zero.push(other);
        }
    }
    let ratios = zero.iter().zip(&plain).map(|(zero, plain)| zero.gb_per_s() / plain.gb_per_s());
    let ratio = median(ratios.collect());
    let of = |rounds: &[Round], figure: fn(Round) -> f64| {
        median(rounds.iter().map(|it| figure(*it)).collect())
    };
    for (name, rounds) in [("plain", &plain), ("zero-copy", &zero)] {
        let (rate, cost) = (of(rounds, Round::gb_per_s), of(rounds, Round::seconds_per_gb));
        println!("{name:<10} {rate:>6.2} GB/s, {cost:.3} s of processor time by GB");
    }
    println!("zero-copy beside plain: {ratio:.2}");
    let Notices { sent, ended, copied, refused } = notices;
    println!("sends {sent}, given back {ended}, of these copied {copied}, no room for {refused}");
    Ok(())
}

/// Sends one round and waits until it has been received, and all memory given back.
fn one_round(
    socket: &TcpStream,
    memory: &[u8],
    mut notices: Option<&mut Notices>,
) -> Result<Round, Failure> {
    let (before, began) = (processor_time()?, Instant::now());
    let mut sent = 0;
    while sent < ROUND_BYTES {
        let from = sent % REGION_BYTES;
        let most = CALL_BYTES.min(ROUND_BYTES - sent).min(REGION_BYTES - from);
        let buffer = &memory[from..from + most];
        sent += match &mut notices {
            None => (&*socket).write(buffer)?,
            Some(notices) => send_zerocopy(socket, buffer, notices)?,
        };
    }
    let mut theirs = [0; 8];
    (&*socket).read_exact(&mut theirs)?;
    if let Some(notices) = &mut notices {
        while notices.ended < notices.sent {
            wait_for_notices(socket, notices)?;
            if began.elapsed() > PATIENCE {
                return Err("the kernel does not give memory back".into());
            }
        }
    }
    let took = began.elapsed();
    let theirs = Duration::from_nanos(u64::from_le_bytes(theirs));
    Ok(Round { took, processor: processor_time()? - before + theirs })
}

/// Sends from memory that the kernel keeps until it says otherwise; how many bytes.
fn send_zerocopy(
    socket: &TcpStream,
    buffer: &[u8],
    notices: &mut Notices,
) -> Result<usize, Failure> {
    loop {
        let flags = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL;
        // SAFETY: the buffer is readable, and lives until all notices have come: see `one_round`.
        let sent =
            unsafe { libc::send(socket.as_raw_fd(), buffer.as_ptr().cast(), buffer.len(), flags) };
        if let Ok(sent) = usize::try_from(sent) {
            notices.sent += 1;
            // So that they do not pile up; most come many at once.
            if notices.sent.is_multiple_of(64) {
                take_notices(socket, notices)?;
            }
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOBUFS) {
            return Err(error.into());
        }
        // As many notices as the socket may keep are due (`net.core.optmem_max`).
        notices.refused += 1;
        wait_for_notices(socket, notices)?;
    }
}

fn wait_for_notices(socket: &TcpStream, notices: &mut Notices) -> Result<(), Failure> {
    let mut wanted = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one descriptor, which is ours. Errors are always looked for.
    unsafe { libc::poll(&raw mut wanted, 1, 1000) };
    take_notices(socket, notices)
}

/// Takes all notices that are there.
fn take_notices(socket: &TcpStream, notices: &mut Notices) -> Result<(), Failure> {
    loop {
        let mut control = [0u64; 16];
        // SAFETY: all zeros is an empty message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the message has no buffers but the one for control messages, which is there.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        if got < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(()),
                _ => Err(error.into()),
            };
        }
        // SAFETY: the kernel has filled the control messages in.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: a control message in the buffer.
            let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
            if matches!(
                (level, kind),
                (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
            ) {
                // SAFETY: what follows the header of an error is this.
                let error = unsafe {
                    libc::CMSG_DATA(header).cast::<libc::sock_extended_err>().read_unaligned()
                };
                notices.take(&error);
            }
            // SAFETY: as above.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
    }
}

fn set_zerocopy(socket: &TcpStream) -> Result<(), Failure> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an integer, which is read.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

/// What this process has used.
fn processor_time() -> Result<Duration, Failure> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is ours to be written to.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if answer != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
