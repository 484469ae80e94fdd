//! The other process: lends memory, and plays ping-pong with it.

use tranship_transport::{
    Access, Address, Descriptor, Engine, Incoming, Peer, Region, RemoteWindow, Slot, Window,
};

use super::asks::{Answer, Ask, decode, encode};
use super::load::Load;
use super::{Fabric, PATIENCE, done, lanes, sockets};
use crate::bench::pages::{self, Pieces};
use crate::bench::{Error, child, line};
use crate::orphan;

/// Serves the process `parent` until it hangs up.
///
/// # Errors
/// When there is no engine or no memory, or a transfer fails.
pub fn run(parent: u32, fabric: &Fabric, busy: bool) -> Result<(), Error> {
    orphan::end_with(parent)
        .map_err(|source| Error::Child { what: "cannot be tied to the first", source })?;
    let engine = fabric.engine(busy, 0)?;
    child::tell_address(&engine)?;
    let mut lent = None;
    loop {
        match engine.recv(PATIENCE) {
            Some(Incoming::Message { from, bytes }) => answer(&engine, &mut lent, from, &bytes)?,
            Some(Incoming::Disconnected { .. }) => return Ok(()),
            Some(Incoming::Connected(_)) | None => {}
        }
    }
}

/// Serves whoever comes, one after the other, until the process is ended; `announce` is told where.
///
/// # Errors
/// When there is no engine, or `announce` fails.
pub fn serve<E: From<Error>>(
    fabric: &Fabric,
    busy: bool,
    announce: impl FnOnce(&Address) -> Result<(), E>,
) -> Result<(), E> {
    let engine = fabric.engine(busy, 0)?;
    announce(&engine.addresses()[0])?;
    let mut lent = None;
    loop {
        match engine.recv(PATIENCE) {
            Some(Incoming::Message { from, bytes }) => {
                if let Err(error) = answer(&engine, &mut lent, from, &bytes) {
                    // One that vanished or asked for too much is no reason to leave the next alone.
                    tracing::warn!("a client was hung up on: {error}");
                    engine.disconnect(from);
                    lent = None;
                }
            }
            Some(Incoming::Disconnected { .. }) => lent = None,
            Some(Incoming::Connected(_)) | None => {}
        }
    }
}

type Lent = Option<(Window, Region)>;

fn answer(engine: &Engine, lent: &mut Lent, from: Peer, bytes: &[u8]) -> Result<(), Error> {
    let answer = match decode(bytes).ok_or(Error::Answer { question: "ask" })? {
        Ask::Open { bytes } => {
            *lent = None;
            let region = engine.register(pages::memory(bytes)?)?;
            let access = Access::WRITE | Access::READ | Access::MAP;
            let window = region.window_with(0..region.len(), access)?;
            let descriptor = window.descriptor();
            *lent = Some((window, region));
            Answer::Opened { window: descriptor }
        }
        Ask::Play { window, slot, size } => {
            let (_, region) = lent.as_ref().ok_or(Error::Answer { question: "open" })?;
            return play(engine, from, region, &window, slot, size);
        }
        Ask::Echo { window, slot, size, beside } => {
            let (_, region) = lent.as_ref().ok_or(Error::Answer { question: "open" })?;
            let window = engine.open_at(from, &window)?;
            return echo(engine, from, (region, &window), slot, size, beside);
        }
        Ask::Sockets { streams, bytes } => {
            Answer::Sockets { port: sockets::serve(streams, bytes)? }
        }
        Ask::Rest => Answer::Resting,
    };
    done(engine.send(from, encode(&answer)).wait())
}

/// Answers each ping by a pong, until a message comes.
fn play(
    engine: &Engine,
    from: Peer,
    region: &Region,
    window: &Descriptor,
    slot: Slot,
    size: u64,
) -> Result<(), Error> {
    let pings = engine.counter()?;
    let theirs = engine.open_at(from, window)?;
    done(engine.send(from, encode(&Answer::Playing { slot: pings.slot() })).wait())?;
    let mut pieces = Pieces::new(size, region.len());
    let mut answered = 0;
    loop {
        engine.wait_until(PATIENCE, || pings.count() > answered || engine.has_incoming());
        if pings.count() == answered {
            // A message, or nothing at all; the caller knows.
            return Ok(());
        }
        let piece = pieces.turn();
        let (here, there) = (region.slice(piece.clone())?, theirs.slice(piece)?);
        done(engine.write(here, there).immediate(slot).wait())?;
        answered += 1;
    }
}

/// Answers each ping by a pong from the end of the region to the end of the window, beside a load,
/// until a message comes.
fn echo(
    engine: &Engine,
    from: Peer,
    (region, window): (&Region, &RemoteWindow),
    slot: Slot,
    size: u64,
    beside: line::Load,
) -> Result<(), Error> {
    let pings = engine.counter()?;
    let end = region.len();
    let (here, there) = (region.slice(end - size..end)?, window.slice(end - size..end)?);
    done(engine.send(from, encode(&Answer::Playing { slot: pings.slot() })).wait())?;
    let mut load = Load::new(engine, region, window);
    let mut answered = 0;
    loop {
        if beside != line::Load::None {
            load.renew()?;
        }
        let called = || pings.count() > answered || engine.has_incoming();
        engine.wait_until(PATIENCE, || called() || load.has_ended());
        if pings.count() > answered {
            let pong = engine.write(&here, &there).lane(lanes::lane(beside));
            done(pong.immediate(slot).wait())?;
            answered += 1;
        } else if !load.has_ended() || engine.has_incoming() {
            // A message, or nothing at all; the caller knows.
            return load.end();
        }
    }
}
