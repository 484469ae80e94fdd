//! The secret of the fabrics between hosts, from wherever it was put.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::schema::Tcp;
use super::value::Secret;

/// Bytes of a secret at most.
const BYTES_MAX: u64 = 1024;

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("token file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("token file {}: empty; put a secret there: openssl rand -hex 32", .0.display())]
    Empty(PathBuf),
    /// The file is something else.
    #[error("token file {}: longer than {BYTES_MAX} bytes; one line of text is expected", .0.display())]
    TooLong(PathBuf),
}

/// The secret that both ends of a tcp connection must have: of `file` if that is given, else as
/// configured; none if there is none.
///
/// # Errors
/// When the file cannot be read, is empty or too long.
pub fn token(file: Option<&Path>, tcp: &Tcp) -> Result<Option<Secret>, TokenError> {
    match file.or_else(|| Some(tcp.token_file.as_ref()?.path())) {
        Some(file) => read(file).map(Some),
        None => Ok(tcp.token.as_ref().cloned()),
    }
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(TokenError::TooLong(path.to_owned()));
    }
    let secret = text.trim();
    if secret.is_empty() {
        return Err(TokenError::Empty(path.to_owned()));
    }
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read the token file; chmod 600 it");
    }
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Maybe;

    #[test]
    fn a_file_given_now_wins_and_bad_ones_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let tcp = Tcp { token: Maybe::Set(Secret::new("configured")), ..Tcp::default() };
        assert_eq!(token(None, &tcp).unwrap().unwrap().reveal(), "configured");
        let good = file("good", "swordfish\n");
        assert_eq!(token(Some(&good), &tcp).unwrap().unwrap().reveal(), "swordfish");
        assert_eq!(token(None, &Tcp::default()).unwrap(), None);
        let told = |path: &Path| token(Some(path), &tcp).unwrap_err().to_string();
        assert!(told(&file("empty", " \n")).contains("openssl rand"));
        assert!(told(&file("long", &"x".repeat(2000))).contains("longer than 1024"));
        assert!(told(&directory.path().join("none")).contains("No such file"));
    }
}
