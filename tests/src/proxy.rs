//! A proxy in front of a service that spoils what goes through it, as it is told.
//!
//! HTTP/1.1, one connection after the other to the service, a thread for each. What happens to a request
//! is decided by a function of the request and its number, so that a seed repeats it as far as the order
//! of requests does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What is known of a request when its fate is decided.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which one it is, from 0.
    pub number: u64,
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub path: String,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Pass,
    /// The proxy answers with this status, and this code of S3, itself.
    Status(u16, &'static str),
    /// The answer's body comes in pieces of so many bytes, each after this time.
    Slow {
        /// Bytes of a piece.
        piece: usize,
        /// Between two of them.
        pause: Duration,
    },
    /// The head of the answer and so many bytes of its body come, and then nothing more.
    Stall {
        /// Bytes of the body.
        after: usize,
    },
    /// Nothing comes at all.
    Silence,
    /// So many bytes of the body come, and then the end of the connection.
    Truncate {
        /// Bytes of the body.
        after: usize,
    },
    /// One bit of the body is another one.
    Flip {
        /// Which byte; counted from the end of the body where it is beyond.
        at: usize,
    },
    /// The request is not passed on; the connection is reset.
    Reset,
    /// The request is passed on and done; then the connection is reset.
    ResetAfter,
}

/// Decides.
pub type Decide = Box<dyn FnMut(&Request) -> Fate + Send>;

/// The proxy. Ends when dropped.
pub struct Proxy {
    /// Host and port.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    decide: Mutex<Decide>,
    requests: AtomicU64,
    over: AtomicBool,
    /// Requests wait until this is over.
    held: (Mutex<bool>, Condvar),
    /// Woken at the end: what stalls ends then.
    ended: (Mutex<bool>, Condvar),
}

impl Proxy {
    /// Starts one in front of `upstream`, which passes everything on.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one").to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            decide: Mutex::new(Box::new(|_| Fate::Pass)),
            requests: AtomicU64::new(0),
            over: AtomicBool::new(false),
            held: Default::default(),
            ended: Default::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.over.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // The client may go away at any time.
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// How it is reached.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `decide` does.
    ///
    /// # Panics
    /// When the last one did.
    pub fn decide(&self, decide: impl FnMut(&Request) -> Fate + Send + 'static) {
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// From now on requests wait for their fate, or do no more.
    ///
    /// # Panics
    /// When another thread panicked.
    pub fn hold(&self, held: bool) {
        *self.shared.held.0.lock().unwrap() = held;
        self.shared.held.1.notify_all();
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.hold(false);
        *self.shared.ended.0.lock().unwrap() = true;
        self.shared.ended.1.notify_all();
        // So that it stops accepting.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    /// One request; the connection is closed after it.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut from = BufReader::new(client.try_clone()?);
        let Some((head, body)) = message(&mut from)? else { return Ok(()) };
        let mut words = head.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = Request { number, method: word(), path: word() };
        let held = self.held.0.lock().unwrap();
        drop(self.held.1.wait_while(held, |held| *held).unwrap());
        let fate = (self.decide.lock().unwrap())(&request);
        match fate {
            Fate::Reset => return reset(&client),
            Fate::Silence => return self.wait_for_the_end(&client),
            Fate::Status(status, code) => {
                let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
                let head =
                    format!("HTTP/1.1 {status} Spoilt\r\ncontent-length: {}\r\n", body.len());
                return answer(&client, &head, body.as_bytes());
            }
            _ => {}
        }
        let mut service = TcpStream::connect(&self.upstream)?;
        service.write_all(closing(&head).as_bytes())?;
        service.write_all(&body)?;
        let has_body = request.method != "HEAD";
        let Some((head, mut body)) = reply(&mut BufReader::new(service), has_body)? else {
            return reset(&client);
        };
        let head = without_end(&head);
        match fate {
            Fate::ResetAfter => reset(&client),
            Fate::Truncate { after } if body.len() > after => {
                let mut client = client;
                client.write_all(with_end(&head, body.len()).as_bytes())?;
                client.write_all(&body[..after])?;
                client.shutdown(Shutdown::Both)
            }
            Fate::Stall { after } if body.len() > after => {
                let mut client = client;
                client.write_all(with_end(&head, body.len()).as_bytes())?;
                client.write_all(&body[..after])?;
                self.wait_for_the_end(&client)
            }
            Fate::Slow { piece, pause } => {
                let mut client = client;
                client.write_all(with_end(&head, body.len()).as_bytes())?;
                for some in body.chunks(piece.max(1)) {
                    client.write_all(some)?;
                    self.pause(pause);
                }
                Ok(())
            }
            Fate::Flip { at } if !body.is_empty() => {
                let at = at.min(body.len() - 1);
                body[at] ^= 0x10;
                answer(&client, &head, &body)
            }
            _ if !has_body => {
                let mut client = client;
                client.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())
            }
            _ => answer(&client, &head, &body),
        }
    }

    fn pause(&self, pause: Duration) {
        let ended = self.ended.0.lock().unwrap();
        drop(self.ended.1.wait_timeout_while(ended, pause, |ended| !*ended).unwrap());
    }

    /// Holds a connection open and says nothing, until the client gives up or the test is over.
    fn wait_for_the_end(&self, client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut client = client;
        while !*self.ended.0.lock().unwrap() {
            match client.read(&mut [0]) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn reset(client: &TcpStream) -> io::Result<()> {
    // What was not read makes the kernel send a reset; a shutdown alone would be an orderly end.
    client.set_nonblocking(true)?;
    let socket = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
    socket.map_err(io::Error::from)
}

fn answer(mut client: &TcpStream, head: &str, body: &[u8]) -> io::Result<()> {
    let head = without_end(head);
    client.write_all(with_end(&head, body.len()).as_bytes())?;
    client.write_all(body)
}

fn with_end(head: &str, body: usize) -> String {
    format!("{head}content-length: {body}\r\nconnection: close\r\n\r\n")
}

/// The lines of a head without those that say how its body ends.
fn without_end(head: &str) -> String {
    let names = ["content-length:", "transfer-encoding:", "connection:", "keep-alive:"];
    let keeps = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !line.trim_end().is_empty() && !names.iter().any(|name| line.starts_with(name))
    };
    head.split_inclusive('\n').filter(keeps).collect()
}

/// The head of a request that asks for the connection to be closed after it.
fn closing(head: &str) -> String {
    let keeps = |line: &&str| {
        !line.trim_end().is_empty() && !line.to_ascii_lowercase().starts_with("connection:")
    };
    let lines: String = head.split_inclusive('\n').filter(keeps).collect();
    format!("{lines}connection: close\r\n\r\n")
}

/// Head and body of a request; none at the end of the connection.
fn message(from: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let Some(head) = head(from)? else { return Ok(None) };
    let mut body = Vec::new();
    if let Some(len) = header(&head, "content-length") {
        from.take(len.parse().unwrap_or(0)).read_to_end(&mut body)?;
    }
    Ok(Some((head, body)))
}

/// Head and body of an answer, whose end may be that of the connection.
fn reply(from: &mut impl BufRead, has_body: bool) -> io::Result<Option<(String, Vec<u8>)>> {
    let Some(head) = head(from)? else { return Ok(None) };
    let mut body = Vec::new();
    if !has_body {
        let len = header(&head, "content-length").map(|len| format!("content-length: {len}\r\n"));
        return Ok(Some((without_end(&head) + &len.unwrap_or_default(), body)));
    }
    if header(&head, "transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let len = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            from.take(len).read_to_end(&mut body)?;
            from.read_line(&mut line)?;
            if len == 0 {
                break;
            }
        }
    } else if let Some(len) = header(&head, "content-length") {
        from.take(len.parse().unwrap_or(0)).read_to_end(&mut body)?;
    } else {
        from.read_to_end(&mut body)?;
    }
    Ok(Some((head, body)))
}

fn head(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if head[before..].trim_end().is_empty() {
            return Ok(Some(head));
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
