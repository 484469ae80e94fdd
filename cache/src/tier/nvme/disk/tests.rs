//! The disks of this machine under the conformance suite.

use std::sync::Arc;

use tempfile::TempDir;
use tranship_transport::memory::Memory;

use super::conformance::Harness;
use super::open::testing;
use super::{Disk, Engine, Options, Target, open};

/// A directory on the disk that the build is on: `/tmp` may be memory.
pub(in super::super) fn directory() -> TempDir {
    let program = std::env::current_exe().expect("a test is a program");
    let here = program.parent().expect("a program is in a directory");
    tempfile::Builder::new().prefix("disk-").tempdir_in(here).expect("a directory for a test")
}

/// A file in a directory of its own, or several.
struct Place {
    directory: TempDir,
    bytes: u64,
}

impl Place {
    fn new(bytes: u64) -> Self {
        Self { directory: directory(), bytes }
    }

    fn file(&self) -> Target {
        Target::new(self.directory.path().join("nvme"))
    }

    /// Three files, in stripes that operations cross all the time.
    fn files(&self) -> Target {
        Target::new(self.directory.path()).unit(1 << 20).file_bytes(self.bytes / 3)
    }

    fn options(&self, memories: &[Arc<Memory>]) -> Options {
        Options::new(self.bytes).create().memories(memories.iter().cloned())
    }
}

macro_rules! disk {
    ($name:ident, $target:ident, $make:expr) => {
        mod $name {
            use super::*;

            struct Device(Place);

            impl Harness for Device {
                fn new(bytes: u64) -> Result<Self, String> {
                    let device = Self(Place::new(bytes));
                    let (target, options) = (device.0.$target(), device.0.options(&[]));
                    let make: fn(&Target, Options) -> Result<Box<dyn Disk>, String> = $make;
                    make(&target, options)?;
                    Ok(device)
                }

                fn open(&mut self, memories: &[Arc<Memory>]) -> Box<dyn Disk> {
                    let make: fn(&Target, Options) -> Result<Box<dyn Disk>, String> = $make;
                    let options = self.0.options(memories);
                    make(&self.0.$target(), options).expect("it could be opened before")
                }
            }

            crate::disk_conformance!(Device);
        }
    };
}

fn plain(target: &Target, options: &Options) -> Result<Box<dyn Disk>, String> {
    open(target, options).map_err(|error| error.to_string())
}

disk!(uring_file, file, |target, options| plain(target, &options.engine(Engine::Uring)));
disk!(uring_stripe, files, |target, options| plain(target, &options.engine(Engine::Uring)));
disk!(uring_sqpoll, file, |target, options| plain(target, &options.engine(Engine::Uring).sqpoll()));
// As with IOPOLL, which no device here can do: a ring that is asked and never slept on.
disk!(uring_two_rings, file, |target, options| testing::uring(target, &options, |setup| {
    setup.two_rings = true;
}));
// Registered in small parts, so that operations cross from one to the next.
disk!(uring_small_buffers, file, |target, options| testing::uring(target, &options, |setup| {
    setup.slot_bytes = 40 << 10;
}));
disk!(uring_one_at_a_time, stripes, |target, options| {
    plain(target, &options.engine(Engine::Uring).depth(1))
});
disk!(pool_file, file, |target, options| plain(target, &options.engine(Engine::Threads)));
disk!(pool_stripe, files, |target, options| plain(target, &options.engine(Engine::Threads)));
disk!(pool_buffered, file, |target, options| plain(target, &options.buffered()));

impl Place {
    /// Two files on two paths.
    fn stripes(&self) -> Target {
        let path = |name| self.directory.path().join(name);
        Target::several([path("a"), path("b")]).unit(64 << 10)
    }
}
