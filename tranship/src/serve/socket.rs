//! UNIX sockets of a daemon: for their owner only, and gone when the daemon is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen};

use super::directory::{self, DirectoryError};

/// Bytes of a path that fit into `sockaddr_un` with its final zero, see unix(7).
const PATH_BYTES_MAX: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why a socket was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The kernel takes no path of this length.
    #[error(
        "{path}: socket path of {bytes} bytes is too long, {PATH_BYTES_MAX} are possible; \
         choose a shorter one"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Somebody listens there.
    #[error("{0}: another daemon listens here; stop it, or choose another path")]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{0}: exists and is no socket; remove it, or choose another path")]
    NoSocket(PathBuf),
    /// Its directory is missing or not safe.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The system refused.
    #[error("{path}: cannot {doing}: {why}")]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        why: io::Error,
    },
}

/// A listening socket; dropping it removes its path, unless somebody else has taken that over.
#[derive(Debug)]
pub(crate) struct Listening {
    path: PathBuf,
    /// Device and inode of the socket's path.
    file: (u64, u64),
}

impl Listening {
    /// Listens on `path` (mode 0600), in place of a socket that nobody listens on any more. The
    /// path's directory is made and checked as by [`directory::prepare`].
    ///
    /// # Errors
    /// When the path is too long, taken, or refused by the system.
    pub(crate) fn open(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let bytes = path.as_os_str().len();
        if bytes > PATH_BYTES_MAX {
            return Err(SocketError::TooLong { path: path.to_owned(), bytes });
        }
        let failed = |doing, why| SocketError::System { path: path.to_owned(), doing, why };
        directory::prepare(path)?;
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || -> io::Result<_> {
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            bind(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket = open().map_err(|why| failed("bind the socket", why))?;
        // Nobody can connect before `listen`, so nobody gets in under the mode of the umask.
        let listen = || -> io::Result<_> {
            chmod(path, Mode::RUSR | Mode::WUSR)?;
            listen(&socket, BACKLOG)?;
            let file = fs::symlink_metadata(path)?;
            Ok((file.dev(), file.ino()))
        };
        let file = listen().map_err(|why| {
            let _ = fs::remove_file(path);
            failed("listen on the socket", why)
        })?;
        Ok((Self { path: path.to_owned(), file }, UnixListener::from(socket)))
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |doing, why| SocketError::System { path: path.to_owned(), doing, why };
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(failed("look at it", why)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|why| failed("remove the stale socket", why))
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            Err(failed("ask who listens here", why))
        }
        // Connected, or too busy to take the connection.
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_gets_in_and_the_path_goes_with_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let (listening, _socket) = Listening::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("run")).unwrap().mode() & 0o777, 0o700);
        UnixStream::connect(&path).unwrap();
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead daemon leaves its socket behind");
        let (listening, _socket) = Listening::open(&path).unwrap();
        let told = Listening::open(&path).unwrap_err().to_string();
        assert!(told.ends_with("another daemon listens here; stop it, or choose another path"));
        // Somebody else's socket at the same path stays.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listening);
        assert!(path.exists());
    }

    #[test]
    fn what_cannot_be_a_socket_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(PATH_BYTES_MAX));
        assert!(matches!(Listening::open(&long), Err(SocketError::TooLong { .. })));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Listening::open(&file), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let deep = dir.path().join("no/such/directory");
        let told = Listening::open(&deep).unwrap_err().to_string();
        assert!(told.contains("cannot be made"), "{told}");
    }
}
