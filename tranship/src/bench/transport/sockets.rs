//! What plain sockets do on this machine: the limit of a fabric that is made of them.
//!
//! As many connections as the fabric has streams. A burst is its length and then the payload; the peer
//! answers with one byte. A length with the topmost bit instead begins a ping-pong of messages of that
//! length, with nothing between them, for as long as the connection lasts. Both sides walk through
//! memory as large as the fabric's, but for no more than 256 MiB.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::bench::{Error, pages};

/// How much one call sends or receives.
const CALL_BYTES: usize = 1 << 20;
/// A burst: long enough that how it begins and ends costs nothing.
const BURST_BYTES: u64 = 64 << 20;
const BACK: u64 = 1 << 63;
const HEADER_BYTES: usize = size_of::<u64>();
/// Memory of one side in all; more would be out of every cache as well.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The measuring side.
pub(super) struct Sockets {
    streams: Vec<Stream>,
}

/// One connection and the memory it sends from.
struct Stream {
    socket: TcpStream,
    memory: pages::Private,
    /// How long its messages are once it plays ping-pong.
    plays: Option<u64>,
    len: usize,
    at: usize,
}

impl Sockets {
    /// Connects to [`serve`], with memory of `bytes` bytes in all.
    pub(super) fn connect(port: u16, streams: u8, bytes: u64) -> Result<Self, Error> {
        let share = share(bytes, streams);
        let stream = |_| {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
            Stream::new(socket, pages::Private::new(share)?, share)
        };
        Ok(Self { streams: (0..streams).map(stream).collect::<Result<_, _>>()? })
    }

    /// Sends a burst over all connections at once and waits until it has been received; how many
    /// bytes it had.
    pub(super) fn burst(&mut self) -> Result<u64, Error> {
        self.send(BURST_BYTES).map(|()| BURST_BYTES)
    }

    fn send(&mut self, bytes: u64) -> Result<(), Error> {
        let count = self.streams.len() as u64;
        let share = |index: u64| bytes / count + u64::from(index < bytes % count);
        let [first, others @ ..] = self.streams.as_mut_slice() else { return Ok(()) };
        thread::scope(|scope| {
            let others: Vec<_> = (1..)
                .zip(others)
                .map(|(index, stream)| scope.spawn(move || stream.send(share(index))))
                .collect();
            let mut result = first.send(share(0));
            for other in others {
                result = result.and(other.join().expect("a sender does not panic"));
            }
            result.map_err(failed)
        })
    }

    /// Sends so many bytes, always as many, over the first connection and waits until they come back.
    /// It is good for nothing else then.
    pub(super) fn round_trip(&mut self, bytes: u64) -> Result<(), Error> {
        self.streams.first_mut().map_or(Ok(()), |stream| stream.round_trip(bytes).map_err(failed))
    }
}

impl Stream {
    fn new(socket: TcpStream, memory: pages::Private, bytes: u64) -> Result<Self, Error> {
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        socket.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        Ok(Self { socket, memory, plays: None, len: bytes as usize, at: 0 })
    }

    fn send(&mut self, bytes: u64) -> io::Result<()> {
        self.socket.write_all(&bytes.to_le_bytes())?;
        self.put(bytes)?;
        self.socket.read_exact(&mut [0])
    }

    fn round_trip(&mut self, bytes: u64) -> io::Result<()> {
        if self.plays.is_none() {
            self.socket.write_all(&(bytes | BACK).to_le_bytes())?;
        }
        let length = *self.plays.get_or_insert(bytes);
        debug_assert_eq!(length, bytes, "messages of one length");
        self.put(bytes)?;
        self.get(bytes)
    }

    /// Answers bursts until the other side hangs up.
    fn answer(&mut self) -> io::Result<()> {
        loop {
            let mut header = [0; HEADER_BYTES];
            self.socket.read_exact(&mut header)?;
            let header = u64::from_le_bytes(header);
            let bytes = header & !BACK;
            if header & BACK == 0 {
                self.get(bytes)?;
                self.socket.write_all(&[1])?;
                continue;
            }
            loop {
                self.get(bytes)?;
                self.put(bytes)?;
            }
        }
    }

    fn put(&mut self, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let range = self.turn(left);
            left -= range.end - range.start;
            self.socket.write_all(self.memory.bytes(&range))?;
        }
        Ok(())
    }

    fn get(&mut self, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let range = self.turn(left);
            left -= range.end - range.start;
            self.socket.read_exact(self.memory.bytes_mut(&range))?;
        }
        Ok(())
    }

    /// The next piece of the memory, round and round.
    fn turn(&mut self, left: u64) -> std::ops::Range<u64> {
        let len = CALL_BYTES.min(usize::try_from(left).unwrap_or(CALL_BYTES));
        if self.at + len > self.len {
            self.at = 0;
        }
        let range = self.at as u64..(self.at + len) as u64;
        self.at += len;
        range
    }
}

/// The peer's side: answers as many connections, each on a thread of its own, with memory of `bytes`
/// bytes in all; the port it listens at.
pub(super) fn serve(streams: u8, bytes: u64) -> Result<u16, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(address).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let share = share(bytes, streams);
    let memories: Vec<_> =
        (0..streams).map(|_| pages::Private::new(share)).collect::<Result<_, _>>()?;
    thread::spawn(move || {
        for memory in memories {
            let Ok((socket, _)) = listener.accept() else { return };
            thread::spawn(move || {
                let Ok(mut stream) = Stream::new(socket, memory, share) else { return };
                // That it waits for the next burst is no failure, and neither is the end.
                let _ = stream.socket.set_read_timeout(None);
                let _ = stream.answer();
            });
        }
    });
    Ok(port)
}

/// The memory of one connection.
fn share(bytes: u64, streams: u8) -> u64 {
    (bytes.min(MEMORY_BYTES_MAX) / u64::from(streams)).max(CALL_BYTES as u64)
}

fn failed(source: io::Error) -> Error {
    Error::Sockets { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_burst_is_answered_for() {
        let port = serve(3, 4 << 20).unwrap();
        let mut sockets = Sockets::connect(port, 3, 4 << 20).unwrap();
        for bytes in [1, 2, 4096, (3 << 20) + 1, 20 << 20] {
            sockets.send(bytes).unwrap();
        }
        for _ in 0..100 {
            sockets.round_trip(4097).unwrap();
        }
    }
}
