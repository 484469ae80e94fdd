//! One socket on its way through the handshake, on either side.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};

use super::frame::word;
use super::greeting::{
    Challenge, Greeting, Hello, Misfit, PREFIX_BYTES, Prover, Role, is_proven, may_begin, prefix,
    prove,
};
use super::socket;
use crate::outcome::Reason;
use crate::time::Time;

/// A socket in the handshake.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: u32,
    pub(super) socket: OwnedFd,
    /// When it is given up.
    pub(super) until: Time,
    /// The dial it belongs to, and what for; `None` for a caller.
    pub(super) dial: Option<(u32, Role)>,
    /// Whether nobody listens there.
    pub(super) refused: bool,
    stage: Stage,
    input: Vec<u8>,
    /// Hello and challenge as they were on the wire.
    hello: Vec<u8>,
    challenge: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// Dialler: the socket is not connected yet.
    Connecting,
    /// Dialler: hello was said.
    AwaitChallenge,
    /// Dialler: the proof was given.
    AwaitWelcome(Challenge),
    /// Acceptor: nobody said anything yet.
    AwaitHello,
    /// Acceptor: the challenge was sent.
    AwaitProof(Hello),
    /// Acceptor: it is for the fabric to take the stream or not.
    Proven,
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Step {
    /// Not done yet.
    Wait,
    /// The other side proved itself, and ours is the word: see [`Call::welcome`].
    Proven(Hello),
    /// The acceptor has taken the stream; of so many bulk streams.
    Welcome(Challenge, u8),
}

/// What each side brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credentials<'a> {
    pub(super) token: &'a [u8],
    /// Ours, should we be the acceptor; but for the nonce.
    pub(super) challenge: &'a Challenge,
}

impl Call {
    /// A dialler's; the socket is connecting.
    pub(super) fn dialled(id: u32, dial: u32, socket: OwnedFd, hello: &Hello, until: Time) -> Self {
        let dial = Some((dial, hello.role));
        let hello = Greeting::Hello(hello.clone()).encode();
        let (input, challenge) = (Vec::new(), Vec::new());
        let stage = Stage::Connecting;
        Self { id, socket, until, dial, refused: false, stage, input, hello, challenge }
    }

    /// An acceptor's.
    pub(super) fn accepted(id: u32, socket: OwnedFd, until: Time) -> Self {
        let (input, hello, challenge) = (Vec::new(), Vec::new(), Vec::new());
        let stage = Stage::AwaitHello;
        Self { id, socket, until, dial: None, refused: false, stage, input, hello, challenge }
    }

    /// Whether the socket is to be watched for room to send.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::Connecting)
    }

    /// Goes on, after the socket became ready.
    pub(super) fn step(&mut self, credentials: &Credentials<'_>) -> Result<Step, Reason> {
        if self.is_connecting() {
            if let Err(errno) = socket::dialled(&self.socket) {
                self.refused = errno == Errno::CONNREFUSED;
                return Err(unreachable(errno));
            }
            self.say(&self.hello.clone())?;
            self.stage = Stage::AwaitChallenge;
        }
        while let Some((kind, bytes)) = self.hear()? {
            let greeting = Greeting::decode(kind, &bytes[PREFIX_BYTES..]).map_err(|_| {
                self.reject(Reason::Foreign);
                Reason::Foreign
            })?;
            match (&self.stage, greeting) {
                (_, Greeting::Reject(reason)) => return Err(reason),
                (Stage::AwaitChallenge, Greeting::Challenge(challenge)) => {
                    self.challenge = bytes;
                    let proof =
                        prove(credentials.token, Prover::Dialler, &self.hello, &self.challenge);
                    self.say(&Greeting::Proof(proof).encode())?;
                    self.stage = Stage::AwaitWelcome(challenge);
                }
                (Stage::AwaitWelcome(challenge), Greeting::Welcome(proof, streams)) => {
                    let right = is_proven(
                        credentials.token,
                        Prover::Acceptor,
                        &self.hello,
                        &self.challenge,
                        &proof,
                    );
                    if !right {
                        return Err(Reason::Unauthorised);
                    }
                    return Ok(Step::Welcome(challenge.clone(), streams));
                }
                (Stage::AwaitHello, Greeting::Hello(hello)) => {
                    let mut challenge = credentials.challenge.clone();
                    challenge.nonce = nonce()?;
                    self.hello = bytes;
                    self.challenge = Greeting::Challenge(challenge).encode();
                    self.say(&self.challenge.clone())?;
                    self.stage = Stage::AwaitProof(hello);
                }
                (Stage::AwaitProof(hello), Greeting::Proof(proof)) => {
                    let hello = hello.clone();
                    let right = is_proven(
                        credentials.token,
                        Prover::Dialler,
                        &self.hello,
                        &self.challenge,
                        &proof,
                    );
                    if !right {
                        self.reject(Reason::Unauthorised);
                        return Err(Reason::Unauthorised);
                    }
                    self.stage = Stage::Proven;
                    return Ok(Step::Proven(hello));
                }
                _ => return Err(Reason::Foreign),
            }
        }
        Ok(Step::Wait)
    }

    /// Takes the stream: tells the dialler so.
    pub(super) fn welcome(&self, credentials: &Credentials<'_>, streams: u8) -> Result<(), Reason> {
        let proof = prove(credentials.token, Prover::Acceptor, &self.hello, &self.challenge);
        self.say(&Greeting::Welcome(proof, streams).encode())
    }

    /// Turns the other side away.
    pub(super) fn reject(&self, reason: Reason) {
        if self.dial.is_none() {
            // Whoever does not hear it finds the socket closed.
            let _ = self.say(&Greeting::Reject(reason).encode());
        }
    }

    /// Sends a message. It is short, and what was sent before it was answered: it fits.
    fn say(&self, bytes: &[u8]) -> Result<(), Reason> {
        match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Reason::Failed),
            Err(errno) => Err(unreachable(errno)),
        }
    }

    /// The next message, its prefix included, if it is all here. Nothing behind it is touched: it
    /// is for whoever gets the socket.
    fn hear(&mut self) -> Result<Option<(u8, Vec<u8>)>, Reason> {
        loop {
            let mut wanted = PREFIX_BYTES;
            if self.input.len() >= PREFIX_BYTES {
                let kind;
                match prefix(&word(&self.input, 0)) {
                    Ok((of, len)) => (kind, wanted) = (of, PREFIX_BYTES + len),
                    Err(Misfit::Foreign) => return Err(Reason::Foreign),
                    Err(Misfit::Version) => {
                        self.reject(Reason::Version);
                        return Err(Reason::Version);
                    }
                }
                if self.input.len() == wanted {
                    return Ok(Some((kind, std::mem::take(&mut self.input))));
                }
            }
            let have = self.input.len();
            self.input.resize(wanted, 0);
            let got = read(&self.socket, &mut self.input[have..]);
            self.input.truncate(have + *got.as_ref().unwrap_or(&0));
            if !may_begin(&self.input) {
                return Err(Reason::Foreign);
            }
            match got {
                // Somebody who hangs up in the middle of a message, or says nothing at all.
                Ok(0) => return Err(Reason::Unreachable),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(unreachable(errno)),
            }
        }
    }
}

/// A random number for one handshake.
pub(super) fn nonce() -> Result<[u8; 32], Reason> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| Reason::Failed)?;
    Ok(nonce)
}

/// What a failure to reach somebody is called.
pub(super) fn unreachable(errno: Errno) -> Reason {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => {
            tracing::warn!("a socket failed: {errno}; raise ulimit -n");
            Reason::Failed
        }
        _ => Reason::Unreachable,
    }
}
