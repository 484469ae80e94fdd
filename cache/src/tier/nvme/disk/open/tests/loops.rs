//! Loop devices, for those who may have them.

use std::path::PathBuf;
use std::process::Command;

use super::super::super::tests::directory;
use super::*;

/// A block device of a file's bytes, until it is dropped.
pub(super) struct Loop {
    pub(super) path: PathBuf,
    pub(super) backing: PathBuf,
    pub(super) place: tempfile::TempDir,
}

impl Loop {
    /// A blank device, or why there is none.
    pub(super) fn new(bytes: u64) -> Result<Self, String> {
        let place = directory();
        let backing = place.path().join("backing");
        fs::File::create(&backing).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        let path = shell("losetup", &["--find", "--show", backing.to_str().expect("UTF-8")])?;
        Ok(Self { path: PathBuf::from(path.trim()), backing, place })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = shell("losetup", &["--detach", self.path.to_str().expect("UTF-8")]);
    }
}

/// What a program says, or what went wrong.
pub(super) fn shell(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Something mounted, until it is dropped.
pub(super) struct Mount(pub(super) PathBuf);

impl Mount {
    pub(super) fn new(args: &[&str], at: PathBuf) -> Result<Self, String> {
        fs::create_dir(&at).expect("a directory of ours");
        let at_text = at.to_str().expect("UTF-8");
        shell("mount", &[args, &[at_text]].concat())?;
        Ok(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = shell("umount", &["--lazy", self.0.to_str().expect("UTF-8")]);
    }
}
