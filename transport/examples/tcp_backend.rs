//! What the `tcp` fabric moves beside bare sockets, in one run, over the loopback interface:
//! `cargo run --release -p tranship-transport --example tcp_backend [STREAMS]`.
//!
//! The sockets are driven in three ways: blocking, a thread a stream and side; without blocking, one
//! thread a side (`epoll(7)`), which is how the fabric does it; and by `io_uring(7)`, one thread a
//! side. One figure is the throughput of 1 MiB buffers, 64 of them in flight for the fabric; the
//! other the round trip of 4 KiB, both sides
//! looking for it all the time and leaving the processor to others when it is not there. Medians of rounds in turns, so that what
//! disturbs one disturbs all.

#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

mod end;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::event::epoll;
use tranship_transport::fabric::{Event, Fabric, Posted, Status, tcp};
use tranship_transport::{Access, Address, HostMemory, Immediate, Lane};

use end::{End, Failure};

const BUFFER_BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 64;
const REGION_BYTES: usize = IN_FLIGHT * BUFFER_BYTES;
/// Of one round.
const ROUND_BYTES: usize = 256 << 20;
const ROUNDS: usize = 5;
const PING_BYTES: usize = 4096;
const PINGS: usize = 1_000;
/// While the others have their turn nobody polls, and nobody is to be taken for gone.
const HEARTBEAT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Failure> {
    let streams: usize = std::env::args().nth(1).map_or(Ok(2), |it| it.parse())?;
    let mut fabric = Ends::meet(streams as u8)?;
    let (mut rates, mut trips) = ([const { Vec::new() }; 4], [const { Vec::new() }; 3]);
    for _ in 0..ROUNDS {
        rates[0].push(gigabytes(|| blocking(streams))?);
        rates[1].push(gigabytes(|| without_blocking(streams))?);
        rates[2].push(gigabytes(|| by_ring(streams))?);
        rates[3].push(gigabytes(|| fabric.stream())?);
        trips[0].push(ping(spin_receive)?);
        trips[1].push(ping_by_ring()?);
        trips[2].push(fabric.ping()?);
    }
    let rates = rates.map(median);
    println!("1 MiB over {streams} streams, GB/s (and beside epoll):");
    for (name, rate) in ["blocking", "epoll", "io_uring", "tcp fabric"].iter().zip(rates) {
        println!("  {name:<12} {rate:>6.2} ({:.2})", rate / rates[1]);
    }
    let trips = trips.map(median);
    println!("4 KiB there and back, µs (and beside bare sockets):");
    for (name, trip) in ["bare", "io_uring", "tcp fabric"].iter().zip(trips) {
        println!("  {name:<12} {trip:>6.1} ({:.2})", trip / trips[0]);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn gigabytes(run: impl FnOnce() -> Result<f64, Failure>) -> Result<f64, Failure> {
    Ok(ROUND_BYTES as f64 / run()? / 1e9)
}

// ---- bare sockets ------------------------------------------------------------------------------

fn pairs(count: usize) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let pair = |_| {
        let one = TcpStream::connect(listener.local_addr()?)?;
        let (other, _) = listener.accept()?;
        one.set_nodelay(true)?;
        other.set_nodelay(true)?;
        Ok((one, other))
    };
    (0..count).map(pair).collect()
}

/// Joins a thread, and takes its failure for ours.
fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().map_err(|_| "a thread panicked")?
}

fn blocking(streams: usize) -> Result<f64, Failure> {
    let pairs = pairs(streams)?;
    let share = ROUND_BYTES / streams;
    let began = Instant::now();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (mut one, mut other) in pairs {
            threads.push(scope.spawn(move || {
                let buffer = vec![1; BUFFER_BYTES];
                let mut left = share;
                while left > 0 {
                    let now = left.min(BUFFER_BYTES);
                    one.write_all(&buffer[..now])?;
                    left -= now;
                }
                Ok(())
            }));
            threads.push(scope.spawn(move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                let mut left = share;
                while left > 0 {
                    let now = left.min(BUFFER_BYTES);
                    left -= other.read(&mut buffer[..now])?;
                }
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(join)
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// Drives sockets that do not block, each until `step` says that it is through.
fn drive(
    sockets: &mut [TcpStream],
    flags: epoll::EventFlags,
    mut step: impl FnMut(usize, &mut TcpStream) -> io::Result<bool>,
) -> Result<(), Failure> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true)?;
        epoll::add(&set, socket, epoll::EventData::new_u64(at as u64), flags)?;
    }
    let empty = epoll::Event { flags, data: epoll::EventData::new_u64(0) };
    let (mut events, mut left) = ([empty; 64], sockets.len());
    while left > 0 {
        let ready = epoll::wait(&set, &mut events, None)?;
        for event in &events[..ready] {
            let at = event.data.u64() as usize;
            match step(at, &mut sockets[at]) {
                Ok(true) => {
                    epoll::delete(&set, &sockets[at])?;
                    left -= 1;
                }
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn without_blocking(streams: usize) -> Result<f64, Failure> {
    let (mut ones, mut others): (Vec<_>, Vec<_>) = pairs(streams)?.into_iter().unzip();
    let share = ROUND_BYTES / streams;
    let began = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let (memory, mut sent) = (vec![1; REGION_BYTES], vec![0; streams]);
            drive(&mut ones, epoll::EventFlags::OUT, |at, socket| {
                let from = (sent[at] + at * BUFFER_BYTES) % REGION_BYTES;
                let most = BUFFER_BYTES.min(share - sent[at]).min(REGION_BYTES - from);
                sent[at] += socket.write(&memory[from..from + most])?;
                Ok(sent[at] == share)
            })
        });
        let receiver = scope.spawn(move || {
            let (mut memory, mut got) = (vec![0; REGION_BYTES], vec![0; streams]);
            drive(&mut others, epoll::EventFlags::IN, |at, socket| {
                let from = (got[at] + at * BUFFER_BYTES) % REGION_BYTES;
                let most = BUFFER_BYTES.min(share - got[at]).min(REGION_BYTES - from);
                got[at] += socket.read(&mut memory[from..from + most])?;
                Ok(got[at] == share)
            })
        });
        join(sender).and(join(receiver))
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// One buffer under way on each stream, by a ring.
fn ring(sockets: &[TcpStream], share: usize, sending: bool) -> Result<(), Failure> {
    let mut memory = vec![1u8; REGION_BYTES];
    let mut ring = IoUring::new(64)?;
    let (mut moved, mut left) = (vec![0; sockets.len()], sockets.len());
    let mut idle: Vec<usize> = (0..sockets.len()).collect();
    while left > 0 {
        for at in idle.drain(..) {
            let from = (moved[at] + at * BUFFER_BYTES) % REGION_BYTES;
            let most = BUFFER_BYTES.min(share - moved[at]).min(REGION_BYTES - from);
            let socket = types::Fd(sockets[at].as_raw_fd());
            let buffer = memory[from..from + most].as_mut_ptr();
            let entry = if sending {
                opcode::Send::new(socket, buffer, most as u32).build()
            } else {
                opcode::Recv::new(socket, buffer, most as u32).build()
            };
            // SAFETY: memory and sockets stay until all that was submitted has completed.
            unsafe { ring.submission().push(&entry.user_data(at as u64)) }?;
        }
        ring.submit_and_wait(1)?;
        for done in ring.completion() {
            if done.result() <= 0 {
                return Err(io::Error::from_raw_os_error(-done.result()).into());
            }
            let at = done.user_data() as usize;
            moved[at] += done.result() as usize;
            if moved[at] == share {
                left -= 1;
            } else {
                idle.push(at);
            }
        }
    }
    Ok(())
}

fn by_ring(streams: usize) -> Result<f64, Failure> {
    let (ones, others): (Vec<_>, Vec<_>) = pairs(streams)?.into_iter().unzip();
    let share = ROUND_BYTES / streams;
    let began = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(move || ring(&ones, share, true));
        let receiver = scope.spawn(move || ring(&others, share, false));
        join(sender).and(join(receiver))
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// Receives all of a buffer, spinning.
fn spin_receive(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<(), Failure> {
    let mut got = 0;
    while got < buffer.len() {
        match socket.read(&mut buffer[got..]) {
            Ok(0) => return Err("hung up".into()),
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn trip(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / PINGS as f64
}

fn ping(
    receive: impl Fn(&mut TcpStream, &mut [u8]) -> Result<(), Failure> + Sync,
) -> Result<f64, Failure> {
    let (mut one, mut other) = pairs(1)?.remove(0);
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    let receive = &receive;
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut buffer = [0; PING_BYTES];
            for _ in 0..PINGS {
                receive(&mut other, &mut buffer)?;
                other.write_all(&buffer)?;
            }
            Ok(())
        });
        let began = Instant::now();
        let mut buffer = [0; PING_BYTES];
        for _ in 0..PINGS {
            one.write_all(&buffer)?;
            receive(&mut one, &mut buffer)?;
        }
        let trip = trip(began);
        join(echo)?;
        Ok(trip)
    })
}

fn ping_by_ring() -> Result<f64, Failure> {
    let (one, other) = pairs(1)?.remove(0);
    let play = |socket: TcpStream, first: bool| {
        let mut buffer = [0u8; PING_BYTES];
        let mut ring = IoUring::new(8)?;
        let fd = types::Fd(socket.as_raw_fd());
        let mut go = |sending: bool| -> Result<(), Failure> {
            let mut at = 0;
            while at < PING_BYTES {
                let (rest, len) = (buffer[at..].as_mut_ptr(), (PING_BYTES - at) as u32);
                let entry = if sending {
                    opcode::Send::new(fd, rest, len).build()
                } else {
                    opcode::Recv::new(fd, rest, len).build()
                };
                // SAFETY: what is submitted is waited for before the buffer goes.
                unsafe { ring.submission().push(&entry) }?;
                ring.submit()?;
                let moved = loop {
                    if let Some(done) = ring.completion().next() {
                        break done.result();
                    }
                    thread::yield_now();
                };
                if moved <= 0 {
                    return Err(io::Error::from_raw_os_error(-moved).into());
                }
                at += moved as usize;
            }
            Ok(())
        };
        for _ in 0..PINGS {
            go(first)?;
            go(!first)?;
        }
        Ok(())
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let echo = scope.spawn(move || play(other, false));
        play(one, true).and(join(echo))
    })?;
    Ok(trip(began))
}

// ---- the fabric --------------------------------------------------------------------------------

/// What the other side is to do.
enum Order {
    /// Poll until it is told that all has landed.
    Stream,
    /// Answer so many pings.
    Ping,
}

/// One end here, the other on a thread of its own.
struct Ends {
    near: End,
    orders: Sender<Order>,
    done: Receiver<()>,
}

impl Ends {
    fn meet(streams: u8) -> Result<Self, Failure> {
        let (addresses, address) = channel();
        let (orders, ordered) = channel();
        let (say_done, done) = channel();
        thread::spawn(move || -> Result<(), Failure> {
            let mut far = End::new(streams, |fabric| {
                addresses.send(fabric.address())?;
                Ok(())
            })?;
            for order in ordered {
                match order {
                    Order::Stream => far.until(|event| matches!(event, Event::Arrived { .. }))?,
                    Order::Ping => {
                        for _ in 0..PINGS {
                            far.until(|event| matches!(event, Event::Arrived { .. }))?;
                            far.write(0, PING_BYTES, Some(Immediate(1)))?;
                        }
                    }
                }
                // What it has to say about arrivals is said before it stops polling.
                while !far.fabric.arm() {
                    far.fabric.poll(1, &mut far.events);
                }
                say_done.send(())?;
            }
            Ok(())
        });
        let address: Address = address.recv()?;
        let near = End::new(streams, |fabric| {
            fabric.connect(&address);
            Ok(())
        })?;
        Ok(Self { near, orders, done })
    }

    /// Seconds for one round of 1 MiB writes.
    fn stream(&mut self) -> Result<f64, Failure> {
        self.orders.send(Order::Stream)?;
        let began = Instant::now();
        let before = self.near.ops;
        let (mut posted, mut ended) = (0, 0);
        let all = ROUND_BYTES / BUFFER_BYTES;
        while ended < all {
            while posted < all && posted - ended < IN_FLIGHT {
                self.near.write((posted % IN_FLIGHT) * BUFFER_BYTES, BUFFER_BYTES, None)?;
                posted += 1;
            }
            if !self.near.fabric.poll(1, &mut self.near.events) {
                thread::yield_now();
            }
            for event in self.near.events.drain(..) {
                match event {
                    // The acknowledgement of the last ping may come as late as this.
                    Event::Completed { op, status: Status::Done } => {
                        ended += usize::from(op.0 > before);
                    }
                    other => return Err(format!("unexpected {other:?}").into()),
                }
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        self.near.write(0, 0, Some(Immediate(0)))?;
        self.near.until(|event| matches!(event, Event::Completed { .. }))?;
        self.done.recv()?;
        Ok(seconds)
    }

    /// Microseconds of a round trip.
    fn ping(&mut self) -> Result<f64, Failure> {
        self.orders.send(Order::Ping)?;
        let began = Instant::now();
        for _ in 0..PINGS {
            self.near.write(0, PING_BYTES, Some(Immediate(1)))?;
            self.near.until(|event| matches!(event, Event::Arrived { .. }))?;
        }
        let trip = trip(began);
        self.done.recv()?;
        Ok(trip)
    }
}

impl End {
    /// Meets the other one, as told.
    fn new(
        streams: u8,
        meet: impl FnOnce(&mut dyn Fabric) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let memory = HostMemory::new(REGION_BYTES).prefault().build()?;
        let config = tcp::Config::new().streams(streams).heartbeat(HEARTBEAT, 1);
        Self::open(config, memory, Access::WRITE, meet)
    }

    fn write(
        &mut self,
        offset: usize,
        len: usize,
        immediate: Option<Immediate>,
    ) -> Result<(), Failure> {
        let lane = if len <= PING_BYTES { Lane::Latency } else { Lane::Bulk };
        match self.post(lane, offset as u64, len as u64, immediate) {
            Posted::Done | Posted::Pending => Ok(()),
            answer => Err(format!("{answer:?}").into()),
        }
    }

    /// Polls until an event that is wanted.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<(), Failure> {
        loop {
            if !self.fabric.poll(1, &mut self.events) {
                thread::yield_now();
            }
            for event in self.events.drain(..) {
                if let Event::PeerDown { reason, .. } = event {
                    return Err(reason.to_string().into());
                }
                if wanted(&event) {
                    return Ok(());
                }
            }
        }
    }
}
