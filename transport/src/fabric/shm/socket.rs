//! The sockets of the fabric: `AF_UNIX`, `SOCK_SEQPACKET`, never blocking (`unix(7)`).

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, UCred, accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
    sockopt,
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::wire::{PACKET_BYTES, Packet};

/// The longest path of a socket: `sun_path` without its terminating NUL.
pub(super) const PATH_BYTES_MAX: usize = 107;
/// Descriptors that come with one packet at most.
const DESCRIPTORS_MAX: usize = 3;
const BACKLOG: i32 = 128;
/// Packets that may wait for a peer to read before nothing more is read from it.
const OUTBOX_PACKETS_MAX: usize = 64;

/// The address of an endpoint: a path, or `@NAME` in the abstract namespace.
pub(super) fn address(endpoint: &str) -> Result<SocketAddrUnix, String> {
    let name = endpoint.strip_prefix('@').unwrap_or(endpoint);
    if name.is_empty() || name.len() > PATH_BYTES_MAX || name.contains('\0') {
        return Err(format!(
            "socket {endpoint:?} has {} bytes, 1 to {PATH_BYTES_MAX} are possible; \
             choose a shorter one, for instance in /run or /tmp",
            name.len()
        ));
    }
    let address = if endpoint.starts_with('@') {
        SocketAddrUnix::new_abstract_name(name.as_bytes())
    } else {
        SocketAddrUnix::new(endpoint)
    };
    address.map_err(|errno| format!("socket {endpoint:?}: {}", io::Error::from(errno)))
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Dials; `WouldBlock` when the listener has no room for another caller just now.
pub(super) fn dial(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = socket()?;
    connect(&socket, address)?;
    Ok(socket)
}

/// A listening socket; its file goes away with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    /// Path, device and inode of our file.
    file: Option<(PathBuf, u64, u64)>,
}

impl Listener {
    /// Listens at an endpoint. The file of a listener that died is replaced.
    pub(super) fn open(endpoint: &str) -> Result<Self, String> {
        let address = address(endpoint)?;
        let failed = |errno: Errno| format!("socket {endpoint:?}: {}", io::Error::from(errno));
        let socket = socket().map_err(|error| format!("socket {endpoint:?}: {error}"))?;
        let path = (!endpoint.starts_with('@')).then(|| PathBuf::from(endpoint));
        if path.is_some() {
            // The file gets the mode of the socket, from its first moment on.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        }
        let mut bound = bind(&socket, &address);
        if bound == Err(Errno::ADDRINUSE)
            && let Some(path) = &path
        {
            remove_stale(path, &address)?;
            bound = bind(&socket, &address);
        }
        match bound {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Err(in_use(endpoint)),
            Err(Errno::NOENT) => {
                return Err(format!(
                    "socket {endpoint:?}: its directory does not exist; create it"
                ));
            }
            Err(errno) => return Err(failed(errno)),
        }
        let file = path.and_then(|path| {
            let there = fs::symlink_metadata(&path).ok()?;
            Some((path, there.dev(), there.ino()))
        });
        let listener = Self { socket, file };
        listen(&listener.socket, BACKLOG).map_err(failed)?;
        Ok(listener)
    }

    /// The next caller, if there is one.
    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = &self.file
            && let Ok(there) = fs::symlink_metadata(path)
            && (there.dev(), there.ino()) == (*device, *inode)
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn in_use(endpoint: &str) -> String {
    format!("socket {endpoint:?} is in use by a live process; stop it or choose another path")
}

/// Removes the file of a socket that nobody listens at.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), String> {
    let shown = path.display();
    let there =
        fs::symlink_metadata(path).map_err(|error| format!("socket \"{shown}\": {error}"))?;
    if !there.file_type().is_socket() {
        return Err(format!("\"{shown}\" exists and is no socket; choose another path"));
    }
    match dial(address).map_err(|error| Errno::from_io_error(&error)) {
        Err(Some(Errno::CONNREFUSED)) => fs::remove_file(path)
            .map_err(|error| format!("stale socket \"{shown}\" cannot be removed: {error}")),
        // Somebody listens, perhaps with another type of socket or at a full backlog.
        _ => Err(in_use(&path.to_string_lossy())),
    }
}

/// A connected socket and what could not be sent yet.
#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
    outbox: VecDeque<([u8; PACKET_BYTES], Vec<OwnedFd>)>,
}

/// What comes out of a line.
#[derive(Debug)]
pub(super) enum Received {
    /// A packet's bytes and descriptors.
    Packet(Vec<u8>, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other side has closed it, or died.
    End,
}

impl Line {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, outbox: VecDeque::new() }
    }

    /// Whose socket it is: of the process that dialled, or that listened.
    pub(super) fn credentials(&self) -> io::Result<UCred> {
        Ok(sockopt::socket_peercred(&self.socket)?)
    }

    /// A descriptor of the process at the other end, readable when it has died (`pidfd_open(2)`).
    pub(super) fn process(&self) -> io::Result<OwnedFd> {
        /// Linux 6.5: cannot confuse a process with a later one of the same number.
        const SO_PEERPIDFD: libc::c_int = 77;
        let mut pidfd: libc::c_int = -1;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `pidfd`.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERPIDFD,
                (&raw mut pidfd).cast(),
                &raw mut len,
            )
        };
        if answer == 0 && pidfd >= 0 {
            // SAFETY: the kernel made it for us just now.
            return Ok(unsafe { OwnedFd::from_raw_fd(pidfd) });
        }
        Ok(pidfd_open(self.credentials()?.pid, PidfdFlags::empty())?)
    }

    /// Sends a packet, now or as soon as there is room.
    pub(super) fn send(&mut self, packet: Packet, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.outbox.push_back((packet.encode(), descriptors));
        self.flush()
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, descriptors)) = self.outbox.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&borrowed));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => {
                    self.outbox.pop_front();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Tells the other side that nothing more will be sent; what waits is dropped.
    pub(super) fn say_no_more(&mut self) {
        self.outbox.clear();
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Whether packets wait to be sent.
    pub(super) fn is_clogged(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next packet.
    pub(super) fn receive(&self) -> io::Result<Received> {
        if self.outbox.len() > OUTBOX_PACKETS_MAX {
            return Ok(Received::Nothing);
        }
        // One byte more than a packet, to tell longer ones.
        let mut bytes = [0; PACKET_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            let iov = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, iov, &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET) => return Ok(Received::End),
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("too many descriptors, or no room for them (ulimit -n)"));
        }
        Ok(Received::Packet(bytes[..received.bytes.min(bytes.len())].to_vec(), descriptors))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
