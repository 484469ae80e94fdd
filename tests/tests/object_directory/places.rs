//! Places that cannot be opened, or go bad.

use super::*;

#[test]
fn options_that_cannot_be_are_refused_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let wrong: [fn(&mut Options); 7] = [
        |options| options.node = "a/b".to_owned(),
        |options| options.pack_bytes = 1,
        |options| options.part_bytes = 1,
        |options| options.buffer_bytes = 1,
        |options| options.grace = Duration::from_secs(1),
        |options| options.demand_requests = 0,
        |options| options.codec_width = 3,
    ];
    for spoil in wrong {
        let mut options = options(&directory, "a");
        spoil(&mut options);
        let Err(OpenError::Option(text)) = Rig::open(options) else { panic!("it opened") };
        assert!(!text.contains('\n'), "{text}");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Rig::open(Options::new(file.to_str().unwrap(), "a")).err().unwrap();
    assert!(matches!(error, OpenError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("it is no directory; name a directory"), "{error}");
    let slip = Rig::open(Options::new("s3:/bucket", "a")).err().unwrap();
    assert!(matches!(slip, OpenError::Url(_)), "{slip}");
}

/// A file system of its own; unmounted when dropped.
struct Mount(TempDir);

impl Mount {
    /// With room for so much; none where that is not allowed, and that is said.
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let run = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(directory.path())
            .output();
        let why = match run {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
        {
            eprintln!("skipped: no file system can be mounted: {why}");
        }
        None
    }

    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        let status = Command::new("mount").args(["-o", &how]).arg(self.0.path()).status();
        assert!(status.unwrap().success(), "{how}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_directory_that_is_full_or_read_only_is_told_until_it_is_not() {
    let Some(mount) = Mount::new("4m") else { return };
    let mut quick = options(&mount.0, "a");
    quick.breaker.pause = Duration::from_millis(20);
    quick.breaker.pause_max = Duration::from_millis(50);
    let rig = Rig::open(quick).unwrap();
    let mut number = 0;
    let mut store = || {
        number += 1;
        let (record, bytes) = block(number, 100_000);
        rig.store(record, &bytes, true)
    };
    store().unwrap();
    let mut refused = |said: &str| {
        let failed = store();
        assert!(matches!(&failed, Err(Failure::Io(text)) if text.contains(said)), "{failed:?}");
        let Health::ReadOnly(why) = rig.bucket.health() else {
            panic!("{:?}", rig.bucket.health())
        };
        assert!(why.contains("writing does not work") && why.contains(said), "{why}");
        assert!(matches!(store(), Err(Failure::Unavailable(_))));
        check(&rig, 1, 100_000);
    };
    let filler = mount.0.path().join("filler");
    let full = std::fs::write(&filler, vec![1; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    refused("No space left on device");
    std::fs::remove_file(&filler).unwrap();
    rig.until(|| rig.bucket.health() == Health::Ready);
    mount.remount("ro");
    refused("Read-only file system");
    let error = Rig::open(Options { or_read_only: false, ..options(&mount.0, "b") }).err().unwrap();
    assert!(matches!(error, OpenError::Denied { what: "write", .. }), "{error}");
    mount.remount("rw");
    rig.until(|| rig.bucket.health() == Health::Ready);
    store().unwrap();
}
