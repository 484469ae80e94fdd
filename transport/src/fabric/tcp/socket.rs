//! Sockets that never block, and the system calls on raw memory.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, accept_with, connect, getpeername,
    getsockname, socket_with, sockopt,
};

/// Pieces of memory in one system call at most.
pub(super) const PIECES_MAX: usize = 256;
/// Unsent bytes in a socket beyond which it takes no more: what is queued in the kernel can be
/// neither cancelled nor overtaken.
const UNSENT_BYTES: libc::c_int = 256 << 10;

/// Pieces of memory for one system call.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    list: Vec<libc::iovec>,
    bytes: usize,
}

// SAFETY: empty between system calls; the pointers in it are never used otherwise.
unsafe impl Send for Pieces {}

impl Pieces {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.bytes = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= PIECES_MAX
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stores bytes that were received before; as many as there are pieces for.
    ///
    /// # Safety
    /// All pieces are writable, and none of them is part of `bytes`.
    pub(super) unsafe fn fill(&self, mut bytes: &[u8]) {
        for piece in &self.list {
            let (now, rest) = bytes.split_at(piece.iov_len.min(bytes.len()));
            // SAFETY: the caller vouches for the piece.
            unsafe {
                piece.iov_base.cast::<u8>().copy_from_nonoverlapping(now.as_ptr(), now.len());
            }
            bytes = rest;
        }
    }

    /// Adds a piece; the call that follows reads from it or writes to it.
    pub(super) fn push(&mut self, start: *mut u8, len: usize) {
        if len > 0 {
            self.list.push(libc::iovec { iov_base: start.cast(), iov_len: len });
            self.bytes += len;
        }
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// None just now.
    Nothing,
    /// The other side sends no more.
    End,
}

/// Sends from the pieces.
///
/// # Safety
/// All pieces are readable.
pub(super) unsafe fn send(socket: BorrowedFd<'_>, pieces: &Pieces) -> Result<Moved, Errno> {
    let message = message(pieces);
    loop {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the caller vouches for the pieces; the rest of the message is empty.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(Moved::Bytes(sent)),
            Err(_) => match last_error() {
                Errno::INTR => {}
                Errno::AGAIN => return Ok(Moved::Nothing),
                errno => return Err(errno),
            },
        }
    }
}

/// Receives into the pieces, which are not all empty.
///
/// # Safety
/// All pieces are writable.
pub(super) unsafe fn receive(socket: BorrowedFd<'_>, pieces: &Pieces) -> Result<Moved, Errno> {
    let mut message = message(pieces);
    loop {
        // SAFETY: as above.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        match usize::try_from(got) {
            Ok(0) => return Ok(Moved::End),
            Ok(got) => return Ok(Moved::Bytes(got)),
            Err(_) => match last_error() {
                Errno::INTR => {}
                Errno::AGAIN => return Ok(Moved::Nothing),
                errno => return Err(errno),
            },
        }
    }
}

fn message(pieces: &Pieces) -> libc::msghdr {
    // SAFETY: all zeros is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.list.as_ptr().cast_mut();
    message.msg_iovlen = pieces.list.len() as _;
    message
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Listens at HOST:PORT.
pub(super) fn listen(endpoint: &str) -> Result<(TcpListener, SocketAddr), String> {
    let addresses: Vec<_> = endpoint
        .to_socket_addrs()
        .map_err(|error| {
            format!(
                "cannot listen at {endpoint:?}: {error}; give HOST:PORT with a name or address \
                     of this machine"
            )
        })?
        .collect();
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "cannot listen at {endpoint}: the port is in use; stop who has it (ss -ltnp), or choose \
             another one, or 0 for any"
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "cannot listen at {endpoint}: no address of this machine; choose one of ip addr, or \
             0.0.0.0 for all"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen at {endpoint}: {error}; choose a port from 1024 on")
        }
        _ => format!("cannot listen at {endpoint}: {error}"),
    };
    let listener = TcpListener::bind(addresses.as_slice()).map_err(|error| failed(&error))?;
    listener.set_nonblocking(true).map_err(|error| failed(&error))?;
    let at = listener.local_addr().map_err(|error| failed(&error))?;
    Ok((listener, at))
}

/// Begins to dial. The socket becomes writable when that has ended; see [`dialled`].
pub(super) fn dial(to: &SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket)?;
    match connect(&socket, to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// The same socket with a descriptor of at least `floor`.
pub(super) fn raise(socket: OwnedFd, floor: RawFd) -> Result<OwnedFd, String> {
    if socket.as_raw_fd() >= floor {
        return Ok(socket);
    }
    rustix::io::fcntl_dupfd_cloexec(&socket, floor)
        .map_err(|errno| format!("a descriptor from {floor} on: {errno}; raise ulimit -n"))
}

/// Whether dialling went well, once the socket is writable.
pub(super) fn dialled(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)?
}

/// The next caller, if there is one.
pub(super) fn accept(listener: &TcpListener) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = accept_with(listener, flags)?;
    prepare(&socket)?;
    Ok(socket)
}

/// Whether the other side is on this machine, so that its loopback addresses mean the same here.
pub(super) fn is_near(socket: &OwnedFd) -> bool {
    let ip = |at: SocketAddrAny| Some(SocketAddr::try_from(at).ok()?.ip().to_canonical());
    let theirs = getpeername(socket).ok().flatten().and_then(ip);
    let ours = getsockname(socket).ok().and_then(ip);
    theirs.is_some_and(|it| it.is_loopback()) || (theirs.is_some() && theirs == ours)
}

/// Small frames leave at once, and few unsent bytes wait in the kernel.
fn prepare(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    let unsent = UNSENT_BYTES;
    // SAFETY: the option takes an integer, which is read.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const unsent).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}
