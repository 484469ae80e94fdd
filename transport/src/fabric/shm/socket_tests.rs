use std::os::unix::fs::PermissionsExt;

use super::*;

/// A fresh directory, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tranship-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn endpoint(&self) -> String {
        self.0.join("s").to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_file_is_ours_alone_and_goes_away() {
    let directory = Directory::new("mode");
    let endpoint = directory.endpoint();
    let listener = Listener::open(&endpoint).unwrap();
    let mode = fs::metadata(&endpoint).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    assert!(!Path::new(&endpoint).exists());
}

#[test]
fn a_live_socket_is_left_alone() {
    let directory = Directory::new("live");
    let endpoint = directory.endpoint();
    let _listener = Listener::open(&endpoint).unwrap();
    let error = Listener::open(&endpoint).unwrap_err();
    assert!(error.contains("in use") && error.contains(&endpoint), "{error}");
    assert!(Path::new(&endpoint).exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = Directory::new("stale");
    let endpoint = directory.endpoint();
    let mut dead = Listener::open(&endpoint).unwrap();
    // As after a kill: the descriptor is closed, the file stays.
    dead.file = None;
    drop(dead);
    assert!(Path::new(&endpoint).exists());
    Listener::open(&endpoint).unwrap();
}

#[test]
fn other_files_are_left_alone() {
    let directory = Directory::new("file");
    let endpoint = directory.endpoint();
    fs::write(&endpoint, "precious").unwrap();
    let error = Listener::open(&endpoint).unwrap_err();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(fs::read(&endpoint).unwrap(), b"precious");
}

#[test]
fn a_long_path_names_the_limit_and_the_remedy() {
    let endpoint = format!("/tmp/{}", "x".repeat(120));
    let error = Listener::open(&endpoint).unwrap_err();
    assert!(error.contains("107") && error.contains("shorter") && error.contains(&endpoint));
    assert!(address("@").is_err());
    assert!(address(&format!("/{}", "x".repeat(106))).is_ok());
}
