//! The directory of a socket.
//!
//! Whoever may write to the directory of a socket can put their own in its place, so it must belong
//! to the daemon's user or to root, and others must not be able to rename what is in it.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a directory is not used for sockets.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is missing and could not be made.
    #[error("{path}: directory cannot be made: {why}; make it, or choose another path")]
    NotMade {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// It cannot be looked at.
    #[error("{path}: directory cannot be used: {why}")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// It belongs to somebody else.
    #[error(
        "{path}: directory belongs to user {owner}, not to user {us} or root; remove it, or choose \
         another path"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others may replace what is in it.
    #[error("{path}: others may write to this directory; chmod go-w {path}, or choose another")]
    Open {
        /// The directory.
        path: PathBuf,
    },
}

/// Makes the directory of `socket` (mode 0700) if it is missing, and checks it if it is there.
///
/// # Errors
/// When it cannot be made, or others could put a socket of their own in the place of ours.
pub(crate) fn prepare(socket: &Path) -> Result<(), DirectoryError> {
    let Some(path) = socket.parent().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(directory) => check(path, &directory),
            Err(why) => Err(DirectoryError::Unreadable { path: path.to_owned(), why }),
        },
        Err(why) => Err(DirectoryError::NotMade { path: path.to_owned(), why }),
    }
}

fn check(path: &Path, directory: &Metadata) -> Result<(), DirectoryError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let (owner, us) = (directory.uid(), rustix::process::geteuid().as_raw());
    if owner != us && owner != 0 {
        return Err(DirectoryError::Foreign { path: path.to_owned(), owner, us });
    }
    // In a sticky directory such as /tmp only owners rename and remove.
    if directory.mode() & OTHERS_WRITE != 0 && directory.mode() & STICKY == 0 {
        return Err(DirectoryError::Open { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_for_its_owner_alone() {
        let scene = tempfile::tempdir().unwrap();
        let socket = scene.path().join("run/a.sock");
        prepare(&socket).unwrap();
        let mode = fs::metadata(scene.path().join("run")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        prepare(&socket).unwrap();
    }

    #[test]
    fn one_that_others_may_write_to_is_refused() {
        let scene = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(scene.path(), Permissions::from_mode(mode)).unwrap();
        let socket = scene.path().join("a.sock");
        mode(0o777);
        assert!(matches!(prepare(&socket), Err(DirectoryError::Open { .. })));
        mode(0o1777);
        prepare(&socket).unwrap();
    }
}
