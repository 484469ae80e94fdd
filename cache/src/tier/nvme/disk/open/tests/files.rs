//! Files and directories.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::super::super::tests::directory;
use super::*;

#[test]
fn a_file_is_made_whole_and_found_again() {
    let place = directory();
    let path = place.path().join("nvme");
    let disk = made(&path, 3 * MIB);
    assert_eq!(disk.bytes(), 3 * MIB);
    assert!(disk.describe().contains(path.to_str().unwrap()), "{}", disk.describe());
    drop(disk);
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (3 * MIB, 0o600));
    assert!(metadata.blocks() * 512 >= 3 * MIB, "its room is taken");
    for (bytes, found) in [(0, 3 * MIB), (3 * MIB, 3 * MIB), (MIB, MIB)] {
        let disk = open(&Target::new(&path), &Options::new(bytes)).unwrap();
        assert_eq!(disk.bytes(), found);
    }
    let text = refusal(&path, &Options::new(4 * MIB).create());
    assert!(text.contains("has 3 MiB, 4 MiB are asked for"), "{text}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn an_empty_file_is_given_its_size_and_no_other_is_touched() {
    let place = directory();
    let path = place.path().join("nvme");
    fs::write(&path, b"").unwrap();
    let text = refusal(&path, &Options::new(MIB));
    assert!(text.contains("has 0 B, 1 MiB are asked for"), "{text}");
    drop(made(&path, MIB));
    assert_eq!(path.metadata().unwrap().len(), MIB);

    // Neither something else nor something short is written to, whatever is asked for.
    let held: Vec<u8> = (0..MIB).map(|n| (n * 7 % 251) as u8).collect();
    for len in [1, 4095, 4096, MIB as usize - 1, MIB as usize] {
        fs::write(&path, &held[..len]).unwrap();
        for bytes in [0, MIB] {
            drop(open(&Target::new(&path), &Options::new(bytes).create()));
        }
        assert!(fs::read(&path).unwrap() == held[..len], "{len} bytes were changed");
    }
}

#[test]
fn the_callers_mark_decides_what_is_its_own() {
    let place = directory();
    let path = place.path().join("nvme");
    let ours = |page: &[u8]| page.starts_with(b"mine");
    let options = Options::new(MIB).create().ours(ours);
    drop(open(&Target::new(&path), &options).unwrap());
    // Blank is well; own is well, whatever follows; anything else is not.
    drop(open(&Target::new(&path), &options).unwrap());
    let mut bytes = vec![0; MIB as usize];
    bytes[..4].copy_from_slice(b"mine");
    bytes[512..520].copy_from_slice(b"EFI PART");
    fs::write(&path, &bytes).unwrap();
    drop(open(&Target::new(&path), &options).unwrap());
    bytes[0] = b'y';
    fs::write(&path, &bytes).unwrap();
    let text = refusal(&path, &options);
    assert!(text.contains("holds a GPT partition table") && text.contains("remove it"), "{text}");
    bytes[512..520].fill(0);
    fs::write(&path, &bytes).unwrap();
    let text = refusal(&path, &options);
    assert!(text.contains("holds something that is not Tranship's"), "{text}");
    assert!(fs::read(&path).unwrap() == bytes, "it was changed");
}

#[test]
fn one_process_at_a_time() {
    let place = directory();
    let path = place.path().join("nvme");
    let disk = made(&path, MIB);
    let text = refusal(&path, &Options::new(MIB));
    let here = format!("in use by this process (pid {})", std::process::id());
    assert!(text.contains(&here), "{text}");
    // A second name is the same file.
    let other = place.path().join("other");
    fs::hard_link(&path, &other).unwrap();
    assert!(refusal(&other, &Options::new(MIB)).contains("in use by"));
    drop(disk);
    drop(made(&path, MIB));
}

#[test]
fn another_process_is_named() {
    let place = directory();
    let path = place.path().join("nvme");
    drop(made(&path, MIB));
    let holder = std::process::Command::new("flock")
        .args(["--exclusive", "--no-fork"])
        .arg(&path)
        .args(["sh", "-c", "echo locked; exec cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        skipped("no flock(1) of util-linux");
        return;
    };
    let mut line = String::new();
    let stdout = holder.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    let text = refusal(&path, &Options::new(MIB));
    assert!(text.contains(&format!("another process (pid {})", holder.id())), "{text}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    drop(made(&path, MIB));
}

#[test]
fn what_is_missing_is_named() {
    let place = directory();
    let path = place.path().join("nvme");
    let text = refusal(&path, &Options::new(MIB));
    assert!(text.contains("nvme: no such file; let it be made"), "{text}");
    let text = refusal(&path, &Options::new(0).create());
    assert!(text.contains("no such file"), "{text}");
    let path = place.path().join("not/there");
    let text = refusal(&path, &Options::new(MIB).create());
    assert!(text.contains("there is no directory") && text.contains("mkdir -p"), "{text}");
    let text = refusal(place.path(), &Options::new(MIB));
    assert!(text.contains("tranship-0000.nvme: no such file"), "{text}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn sizes_that_make_no_disk_are_refused() {
    let place = directory();
    let path = place.path().join("nvme");
    let text = refusal(&path, &Options::new(4097).create());
    assert!(text.contains("4097 bytes") && text.contains("multiple of 4096"), "{text}");
    let text = refusal_of(&Target::new(&path).unit(100), &Options::new(MIB).create());
    assert!(text.contains("stripes of 100 bytes"), "{text}");
    let two = Target::several([path.clone(), place.path().join("other")]).unit(MIB);
    let text = refusal_of(&two, &Options::new(MIB).create());
    assert!(text.contains("at least one stripe"), "{text}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn more_than_the_file_system_has_is_refused_before_anything_is_made() {
    let place = directory();
    let bytes = 1 << 60;
    let text = refusal(&place.path().join("nvme"), &Options::new(bytes).create());
    assert!(text.contains("1 EiB do not fit, the file system has"), "{text}");
    // Parts that would fit alone do not fit together.
    let stat = rustix::fs::statvfs(place.path()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let target = Target::several(["a", "b"].map(|name| place.path().join(name))).unit(MIB);
    let text = refusal_of(&target, &Options::new(free / 2 / MIB * MIB * 3).create());
    assert!(text.contains("do not fit"), "{text}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn memory_is_no_disk() {
    let place = tempfile::tempdir_in("/dev/shm");
    let Ok(place) = place else {
        skipped("no /dev/shm");
        return;
    };
    let path = place.path().join("nvme");
    let create = Options::new(MIB).create();
    for path in [&*path, place.path()] {
        let text = refusal(path, &create);
        assert!(text.contains("lies on tmpfs, which is memory"), "{text}");
    }
    fs::write(&path, b"").unwrap();
    assert!(refusal(&path, &create).contains("tmpfs"));
}

#[test]
fn what_is_no_file_is_named() {
    for (path, what) in [("/dev/null", "a character device"), ("/proc/self/fd/0/none", "")] {
        let text = refusal(Path::new(path), &Options::new(MIB));
        assert!(text.contains(what), "{text}");
    }
    let place = directory();
    let path = place.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(refusal(&path, &Options::new(MIB)).contains("is a socket; name a file"));
}

#[test]
fn who_may_not_is_told_so() {
    let place = directory();
    let path = place.path().join("nvme");
    drop(made(&path, MIB));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    if !is_root() {
        skipped("root alone can become somebody else");
        return;
    }
    let new = place.path().join("new");
    // The identity of one thread is changed, and ends with it.
    let refusals = thread::spawn(move || {
        let nobody = 65534;
        #[expect(unsafe_code, reason = "the calls of the C library change all threads")]
        // SAFETY: plain numbers; the thread's identity alone changes.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, nobody, -1) };
        assert_eq!(changed, 0);
        [refusal(&path, &Options::new(MIB)), refusal(&new, &Options::new(MIB).create())]
    });
    let [opening, making] = refusals.join().unwrap();
    // Whether the directories on the way can be passed depends on where the tests were built.
    assert!(opening.contains("user 65534 may not open it; chown or chmod"), "{opening}");
    assert!(making.contains("user 65534 may not"), "{making}");
}

#[test]
fn a_directory_gets_files_of_one_size() {
    let place = directory();
    let target = Target::new(place.path()).unit(MIB).file_bytes(4 * MIB);
    let disk = open(&target, &Options::new(11 * MIB).create()).unwrap();
    // Three files, and what they cannot share equally is left out.
    assert_eq!(disk.bytes(), 9 * MIB);
    assert!(disk.describe().contains("3 files in"), "{}", disk.describe());
    let text = refusal_of(&target, &Options::new(9 * MIB));
    assert!(text.contains("in use by this process"), "{text}");
    drop(disk);
    let sizes: Vec<u64> =
        (0..3).map(|number| file::name(place.path(), number).metadata().unwrap().len()).collect();
    assert_eq!(sizes, [3 * MIB; 3]);
    // As it is, or less; the number of files is what was made.
    assert_eq!(open(&target, &Options::new(0)).unwrap().bytes(), 9 * MIB);
    assert_eq!(open(&target, &Options::new(3 * MIB)).unwrap().bytes(), 3 * MIB);
    let text = refusal_of(&target, &Options::new(12 * MIB).create());
    assert!(text.contains("has 3 MiB, 4 MiB are asked for"), "{text}");
}

#[test]
fn the_first_of_several_says_whose_they_are() {
    let place = directory();
    let target = Target::new(place.path()).unit(MIB).file_bytes(MIB);
    let options = Options::new(3 * MIB).create().ours(|page| page.starts_with(b"mine"));
    drop(open(&target, &options).unwrap());
    let write = |number, bytes: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(file::name(place.path(), number));
        file.unwrap().write_all(bytes).unwrap();
    };
    // Before the first is ours, the others must be blank.
    write(2, b"anything");
    let text = refusal_of(&target, &options);
    assert!(text.contains("0002") && text.contains("that is not Tranship's"), "{text}");
    // Afterwards anything may be at the start of each.
    write(0, b"mine");
    write(1, b"XFSB");
    assert_eq!(open(&target, &options).unwrap().bytes(), 3 * MIB);
    // Under paths that somebody chose, not what is known to be of somebody.
    let several = Target::several((0..3).map(|number| file::name(place.path(), number))).unit(MIB);
    let text = refusal_of(&several, &options);
    assert!(text.contains("0001") && text.contains("xfs"), "{text}");
    write(1, b"more");
    assert_eq!(open(&several, &options).unwrap().bytes(), 3 * MIB);
}

#[test]
fn a_directory_whose_making_was_cut_short_is_completed() {
    let place = directory();
    let target = Target::new(place.path()).unit(MIB).file_bytes(MIB);
    // The last is made first: a crash leaves some, and never the first.
    for number in [2, 1] {
        drop(file::make(&file::name(place.path(), number), MIB).unwrap());
    }
    let disk = open(&target, &Options::new(3 * MIB).create()).unwrap();
    assert_eq!(disk.bytes(), 3 * MIB);
}

#[test]
fn nothing_is_left_of_what_could_not_be_made() {
    let place = directory();
    let paths = [place.path().join("a"), place.path().join("b")];
    let target = Target::several(paths.clone()).unit(MIB);
    // The second is opened first, and is somebody's.
    let locked = made(&paths[0], MIB);
    let text = refusal_of(&target, &Options::new(2 * MIB).create());
    assert!(text.contains("in use by"), "{text}");
    drop(locked);
    // What was made meanwhile is whole and blank, and taken the next time.
    assert_eq!(open(&target, &Options::new(2 * MIB).create()).unwrap().bytes(), 2 * MIB);
}
