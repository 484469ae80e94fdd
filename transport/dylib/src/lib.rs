//! Libraries of the system that are loaded at run time and may be missing: opened by name, never unloaded, and with an
//! error that keeps apart what needs different advice.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such file.
    #[error("{} is not installed; install {packages}", .library.display())]
    NotInstalled {
        /// The library, or the path that was asked for.
        library: PathBuf,
        /// The packages that have it.
        packages: &'static str,
    },
    /// There is a file, but the dynamic linker refuses it: it is no library, is for another machine, or needs something
    /// that is missing.
    #[error("{} cannot be loaded: {detail}; install {packages} again", .library.display())]
    Unusable {
        /// The library, or the path that was asked for.
        library: PathBuf,
        /// What the dynamic linker says.
        detail: String,
        /// The packages that have it.
        packages: &'static str,
    },
    /// It lacks a function that nothing works without.
    #[error("{} has no {symbol}; it is not the library of {packages}, or older than {oldest}", .library.display())]
    SymbolMissing {
        /// The library, or the path that was asked for.
        library: PathBuf,
        /// The function.
        symbol: &'static str,
        /// The packages that have it.
        packages: &'static str,
        /// The first release that is known to have it.
        oldest: &'static str,
    },
    /// It is older than what the bindings were made for.
    #[error("{} is of release {found}, {oldest} or later is needed; upgrade {packages}", .library.display())]
    TooOld {
        /// The library, or the path that was asked for.
        library: PathBuf,
        /// Its release.
        found: String,
        /// The packages that have it.
        packages: &'static str,
        /// The first release that will do.
        oldest: &'static str,
    },
}

impl LoadError {
    /// Whether the library is simply not there, as opposed to broken.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotInstalled { .. })
    }
}

/// A library before it is opened: where, and who has it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// A name for the dynamic linker to look for, or a path.
    pub library: &'a Path,
    /// The packages that have it, for the remedy.
    pub packages: &'static str,
    /// The first release that will do, for the remedy.
    pub oldest: &'static str,
}

impl Source<'_> {
    /// Opens the library. It stays in the process until that ends: providers start threads and register exit handlers,
    /// and unloading them is where they crash.
    ///
    /// # Errors
    /// [`LoadError::NotInstalled`] and [`LoadError::Unusable`].
    pub fn open(self) -> Result<libloading::Library, LoadError> {
        let flags = RTLD_LAZY | RTLD_LOCAL | libc::RTLD_NODELETE;
        // SAFETY: loading runs the library's initialisers; those asked for are system libraries that are made to be
        // loaded by any program, and nothing unloads them.
        match unsafe { Library::open(Some(self.library), flags) } {
            Ok(library) => Ok(library.into()),
            Err(error) => Err(self.refused(&reason(&error))),
        }
    }

    /// The error for a function that [`Source::open`]'s library turned out not to have.
    #[must_use]
    pub fn without(self, symbol: &'static str) -> LoadError {
        let Self { packages, oldest, .. } = self;
        LoadError::SymbolMissing { library: self.library.to_owned(), symbol, packages, oldest }
    }

    /// The error for a library of a release before [`Source::oldest`].
    #[must_use]
    pub fn too_old(self, found: String) -> LoadError {
        let Self { packages, oldest, .. } = self;
        LoadError::TooOld { library: self.library.to_owned(), found, packages, oldest }
    }

    /// The dynamic linker says why in words alone: of a file that it did not find it gives the name first, and what that
    /// file needs has another name.
    fn refused(self, detail: &str) -> LoadError {
        let (library, packages) = (self.library.to_owned(), self.packages);
        let name = self.library.file_name().unwrap_or(OsStr::new("")).to_string_lossy();
        let absent = detail.split_once(": ").is_some_and(|(subject, why)| {
            subject.ends_with(&*name) && why.contains("No such file or directory")
        });
        match absent {
            true => LoadError::NotInstalled { library, packages },
            false => LoadError::Unusable { library, detail: detail.to_owned(), packages },
        }
    }
}

/// What the dynamic linker says, which libloading keeps as the source.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
