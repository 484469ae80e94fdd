//! Devices that fail: each kind of failure is told apart, and nothing else suffers.

use std::sync::Arc;

use tranship_transport::memory::HostMemory;

use super::super::super::schedule::{Action, Next, Schedule};
use super::super::super::tests::directory;
use super::super::super::{Ended, Error, Kind, Op};
use super::loops::{Loop, Mount};
use super::*;
use crate::tier::{Lane, Span};

/// Does one operation; how it ended.
fn run(disk: &mut dyn Disk, kind: Kind) -> Result<(), Error> {
    disk.submit(Op { token: 1, lane: Lane::Demand, kind }).expect("room");
    let mut ended: Vec<Ended> = Vec::new();
    while ended.is_empty() {
        disk.wait(std::time::Duration::from_secs(10));
        disk.poll(&mut ended);
    }
    assert_eq!((ended.len(), disk.in_flight()), (1, 0));
    ended.remove(0).result
}

fn read(disk: &mut dyn Disk, at: u64, into: &Span) -> Result<(), Error> {
    run(disk, Kind::Read { at, into: into.clone() })
}

fn write(disk: &mut dyn Disk, at: u64, from: &Span) -> Result<(), Error> {
    run(disk, Kind::Write { at, from: from.clone() })
}

fn span(bytes: u64) -> Span {
    Span::whole(Arc::new(HostMemory::new(bytes as usize).build().unwrap()))
}

const ENGINES: [Engine; 2] = [Engine::Uring, Engine::Threads];

#[test]
fn what_the_device_cannot_do_is_an_error_of_that_place() {
    for engine in ENGINES {
        let device = match Loop::new(8 * MIB) {
            Ok(device) => device,
            Err(why) => return skipped(&why),
        };
        let target = Target::new(&device.path);
        let mut disk = open(&target, &Options::new(0).engine(engine)).unwrap();
        let memory = span(4 * MIB);
        write(&mut *disk, 0, &memory).unwrap();
        // Behind the end of what is below it the device has nothing.
        fs::File::options().write(true).open(&device.backing).unwrap().set_len(2 * MIB).unwrap();
        let error = read(&mut *disk, 4 * MIB, &memory).unwrap_err();
        assert!(
            matches!(&error, Error::Io { at, text } if *at == 4 * MIB && text.contains("/dev/")),
            "{error}"
        );
        // What is there is read as before, and an operation that is half there fails.
        read(&mut *disk, 0, &memory.slice(0..MIB as usize)).unwrap();
        let error = read(&mut *disk, 0, &memory).unwrap_err();
        assert!(matches!(error, Error::Io { at: 0, .. }), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error_and_not_zeros() {
    for engine in ENGINES {
        let place = directory();
        let path = place.path().join("nvme");
        let target = Target::new(&path);
        let mut disk = open(&target, &Options::new(4 * MIB).create().engine(engine)).unwrap();
        // Not on the border of a page: what comes back is short, and then there is nothing.
        fs::File::options().write(true).open(&path).unwrap().set_len(MIB + 1000).unwrap();
        let memory = span(2 * MIB);
        let error = read(&mut *disk, 0, &memory).unwrap_err();
        assert!(error.to_string().contains("it was cut short"), "{error}");
        read(&mut *disk, 0, &memory.slice(0..MIB as usize)).unwrap();
    }
}

#[test]
fn a_full_file_system_is_no_space() {
    for engine in ENGINES {
        let place = directory();
        let options = ["-t", "tmpfs", "-o", "size=4m", "none"];
        let mount = match Mount::new(&options, place.path().join("small")) {
            Ok(mount) => mount,
            Err(why) => return skipped(&why),
        };
        // `open` takes no memory for a disk, and allocates what it makes.
        let path = mount.0.join("nvme");
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(16 * MIB).unwrap();
        let member = Member { file, path, bytes: 16 * MIB };
        let direct = file::go_direct(&member).unwrap();
        if !direct && engine == Engine::Uring {
            return skipped("tmpfs takes no O_DIRECT before Linux 6.6");
        }
        let files = Files::new(vec![member], MIB, direct, "small".to_owned());
        let mut disk = super::super::engine(files, &Options::new(0).engine(engine)).unwrap();
        let memory = span(16 * MIB);
        write(&mut *disk, 0, &memory.slice(0..2 * MIB as usize)).unwrap();
        // Some of it is written before there is no more room.
        assert_eq!(write(&mut *disk, 0, &memory), Err(Error::NoSpace));
        read(&mut *disk, 0, &memory).unwrap();
    }
}

#[test]
fn after_an_error_the_rest_of_an_operation_is_not_begun() {
    let place = directory();
    let path = place.path().join("nvme");
    let target = Target::new(&path);
    let files = members(&target, &Options::new(16 * MIB).create()).unwrap();
    let limits = Limits { depth: 2, piece_bytes: MIB, room: 4 };
    let mut schedule = Schedule::new(Arc::new(files), limits);
    let kind = Kind::Read { at: 0, into: span(8 * MIB) };
    schedule.submit(Op { token: 1, lane: Lane::Demand, kind }).unwrap();
    schedule.submit(Op { token: 2, lane: Lane::Demand, kind: Kind::Flush }).unwrap();
    let (first, second) = (schedule.next().unwrap(), schedule.next().unwrap());
    assert!(schedule.next().is_none(), "two at a time");
    schedule.ended(first, Err(Error::NoSpace));
    assert!(!schedule.has_ended(), "a piece of it is under way");
    // The next piece is the next operation's.
    let third = schedule.next().unwrap();
    assert_eq!(third.action, Action::Flush);
    schedule.ended(second, Err(Error::Gone("later".to_owned())));
    schedule.ended(third, Ok(()));
    let mut ended = Vec::new();
    schedule.drain(&mut ended);
    let results: Vec<_> = ended.into_iter().map(|one| (one.token, one.result)).collect();
    assert_eq!(results, [(1, Err(Error::NoSpace)), (2, Ok(()))], "the first error counts");
    assert_eq!(schedule.in_flight(), 0);
}

#[test]
fn a_piece_goes_on_where_the_system_stopped() {
    let place = directory();
    let target = Target::new(place.path().join("nvme"));
    let files = Arc::new(members(&target, &Options::new(MIB).create()).unwrap());
    let limits = Limits { depth: 1, piece_bytes: MIB, room: 4 };
    let mut schedule = Schedule::new(Arc::clone(&files), limits);
    let kind = Kind::Read { at: 8192, into: span(16 * 4096) };
    schedule.submit(Op { token: 1, lane: Lane::Demand, kind }).unwrap();
    let mut piece = schedule.next().unwrap();
    let left = |piece: &super::super::super::schedule::Piece| {
        (piece.offset, piece.span.as_ref().map_or(0, Span::len))
    };
    assert_eq!(left(&piece), (8192, 16 * 4096));
    assert!(matches!(piece.answered(-libc::EINTR as isize, &files), Next::Again));
    assert!(matches!(piece.answered(4096 * 3 + 100, &files), Next::Again));
    assert_eq!(left(&piece), (8192 + 3 * 4096, 13 * 4096));
    assert!(matches!(piece.answered(13 * 4096, &files), Next::End(Ok(()))));
    let mut again = piece;
    let refused = (0..1000).find_map(|_| match again.answered(-libc::EAGAIN as isize, &files) {
        Next::Again => None,
        Next::End(result) => Some(result),
    });
    assert!(matches!(refused, Some(Err(Error::Io { .. }))), "not for ever: {refused:?}");
}
