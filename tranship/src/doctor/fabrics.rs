//! The fabrics: which work, and why the others do not.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use tranship_dylib::Source;
use tranship_transport::fabric::tcp;

use super::{Finding, Speed, probe, rdma, sys};
use crate::config::Config;

pub(super) fn examine(config: &Config, speed: Result<Speed, String>) -> Vec<Finding> {
    let loopback = probe::measure(tcp::Config::new(), tcp::Config::new()).map(|it| it.speed);
    vec![
        shm(speed),
        tcp(&sys::interfaces(), loopback),
        rdma::verbs(config),
        rdma::ofi(config),
        cuda(),
    ]
}

/// Shared memory between processes: a sealed memfd, handed over a UNIX socket.
fn shm(speed: Result<Speed, String>) -> Finding {
    match (share_memory(), speed) {
        (Err((step, error)), _) => Finding::absent("shm", format!("{step}: {error}"))
            .remedy("allow memfd_create and UNIX sockets in the sandbox, on Linux 3.17 or newer"),
        (Ok(()), Ok(speed)) => Finding::ready("shm", speed.to_string()).measured(speed),
        (Ok(()), Err(why)) => {
            Finding::warning("shm", format!("memfd and SCM_RIGHTS work, a transfer did not: {why}"))
                .remedy("tranship bench transport -vv shows more")
        }
    }
}

/// Does what the shm fabric does to share a region; says which step failed.
fn share_memory() -> Result<(), (&'static str, Errno)> {
    let step = |name| move |error| (name, error);
    let region = rustix::fs::memfd_create(
        c"tranship-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .map_err(step("memfd_create"))?;
    rustix::fs::ftruncate(&region, 4096).map_err(step("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&region, seals).map_err(step("seals"))?;
    if rustix::fs::ftruncate(&region, 0).is_ok() {
        return Err(("seals do not hold", Errno::NOTSUP));
    }
    let peer = hand_over(&region).map_err(step("SCM_RIGHTS"))?;
    let seen = rustix::fs::fstat(&peer).map_err(step("SCM_RIGHTS"))?;
    if seen.st_size == 4096 { Ok(()) } else { Err(("SCM_RIGHTS", Errno::BADF)) }
}

/// Sends a descriptor through a socket pair and returns the copy that arrives.
fn hand_over(region: &OwnedFd) -> Result<OwnedFd, Errno> {
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let descriptors = [region.as_fd()];
    let mut sent = SendAncillaryBuffer::new(&mut space);
    sent.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(&here, &[IoSlice::new(b"x")], &mut sent, SendFlags::NOSIGNAL)?;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let into = &mut [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(&there, into, &mut received, RecvFlags::CMSG_CLOEXEC)?;
    received
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or(Errno::BADMSG)
}

/// Streams between hosts, measured over the loopback interface.
fn tcp(interfaces: &BTreeMap<String, Ipv4Addr>, speed: Result<Speed, String>) -> Finding {
    let list: Vec<String> = interfaces
        .iter()
        .map(|(name, address)| match name.as_str() {
            "lo" => name.clone(),
            _ => format!("{name} ({address})"),
        })
        .collect();
    let list = list.join(", ");
    match speed {
        Ok(speed) => Finding::ready("tcp", format!("{speed} over lo; {list}")).measured(speed),
        Err(why) if interfaces.is_empty() => {
            Finding::absent("tcp", format!("no network interface is up: {why}"))
                .remedy("bring one up: ip link set lo up")
        }
        Err(why) => Finding::warning("tcp", format!("{list}; a transfer over lo failed: {why}"))
            .remedy("allow TCP sockets on 127.0.0.1 in the sandbox or firewall"),
    }
}

fn cuda() -> Finding {
    let source = Source {
        library: Path::new("libcuda.so.1"),
        packages: "NVIDIA's driver",
        oldest: "that of CUDA 12",
    };
    match source.open() {
        Ok(_) => Finding::absent("cuda", "libcuda found; this build has no cuda fabric yet"),
        Err(error) if error.is_absent() => Finding::absent("cuda", "libcuda.so.1 not found"),
        Err(error) => Finding::warning("cuda", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    const SPEED: Speed = Speed { gb_per_s: 28.71, one_way_us: 0.36 };

    #[test]
    fn shared_memory_works_where_tests_run() {
        let finding = shm(Ok(SPEED));
        assert_eq!(finding.state, State::Ready, "{}", finding.detail);
        assert_eq!(finding.detail, "28.7 GB/s, 0.4 µs");
        assert_eq!(shm(Err("the peer is gone".to_owned())).state, State::Warning);
    }

    #[test]
    fn tcp_says_where_it_listens_and_why_it_does_not() {
        let interfaces = BTreeMap::from([("lo".to_owned(), Ipv4Addr::LOCALHOST)]);
        let ready = tcp(&interfaces, Ok(SPEED));
        assert_eq!(
            (ready.state, ready.detail.as_str()),
            (State::Ready, "28.7 GB/s, 0.4 µs over lo; lo")
        );
        assert_eq!(tcp(&interfaces, Err("refused".to_owned())).state, State::Warning);
        let absent = tcp(&BTreeMap::new(), Err("refused".to_owned()));
        assert!(absent.remedy.is_some_and(|remedy| remedy.contains("ip link")));
        assert_eq!(absent.state, State::Absent);
    }

    #[test]
    fn every_fabric_is_reported_once() {
        let names: Vec<_> =
            examine(&Config::default(), Ok(SPEED)).iter().map(|finding| finding.name).collect();
        assert_eq!(names, ["shm", "tcp", "verbs", "ofi", "cuda"]);
    }
}
