//! What plain sockets do on this machine: the limit of a fabric that is made of them.
//!
//! As many connections as the fabric has streams. A burst is a header, the length and whether it
//! comes back, and then the payload; the peer answers with one byte, or with the payload. Both sides
//! walk through memory as large as the fabric's.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::bench::{Error, pages};

/// How much one call sends or receives.
const CALL_BYTES: usize = 1 << 20;
const BACK: u64 = 1 << 63;
const HEADER_BYTES: usize = size_of::<u64>();
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
    len: usize,
    at: usize,
}

impl Sockets {
    /// Connects to [`serve`], with memory of `bytes` bytes in all.
    pub(super) fn connect(port: u16, streams: u8, bytes: u64) -> Result<Self, Error> {
        let share = (bytes / u64::from(streams)).max(CALL_BYTES as u64);
        let stream = |_| {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
            Stream::new(socket, share)
        };
        Ok(Self { streams: (0..streams).map(stream).collect::<Result<_, _>>()? })
    }

    /// Sends so many bytes over all connections at once, or what one call takes over one of them, and
    /// waits until they have been received.
    pub(super) fn send(&mut self, bytes: u64) -> Result<(), Error> {
        let count = self.streams.len() as u64;
        let share = |index: u64| bytes / count + u64::from(index < bytes % count);
        let [first, others @ ..] = self.streams.as_mut_slice() else { return Ok(()) };
        if bytes <= CALL_BYTES as u64 {
            // A thread for each would cost more than it gains.
            return first.send(bytes).map_err(failed);
        }
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

    /// Sends so many bytes over the first connection and waits until as many come back.
    pub(super) fn round_trip(&mut self, bytes: u64) -> Result<(), Error> {
        self.streams.first_mut().map_or(Ok(()), |stream| stream.round_trip(bytes).map_err(failed))
    }
}

impl Stream {
    fn new(socket: TcpStream, bytes: u64) -> Result<Self, Error> {
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        socket.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        let memory = pages::Private::new(bytes)?;
        Ok(Self { socket, memory, len: bytes as usize, at: 0 })
    }

    fn send(&mut self, bytes: u64) -> io::Result<()> {
        self.socket.write_all(&bytes.to_le_bytes())?;
        self.put(bytes)?;
        self.socket.read_exact(&mut [0])
    }

    fn round_trip(&mut self, bytes: u64) -> io::Result<()> {
        self.socket.write_all(&(bytes | BACK).to_le_bytes())?;
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
            self.get(bytes)?;
            if header & BACK == 0 {
                self.socket.write_all(&[1])?;
            } else {
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
    let share = (bytes / u64::from(streams)).max(CALL_BYTES as u64);
    thread::spawn(move || {
        for _ in 0..streams {
            let Ok((socket, _)) = listener.accept() else { return };
            thread::spawn(move || {
                let Ok(mut stream) = Stream::new(socket, share) else { return };
                // That it waits for the next burst is no failure, and neither is the end.
                let _ = stream.socket.set_read_timeout(None);
                let _ = stream.answer();
            });
        }
    });
    Ok(port)
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
            sockets.round_trip(bytes.min(5 << 20)).unwrap();
        }
    }
}
