//! Block devices.

use super::loops::{Loop, Mount, shell};
use super::*;

macro_rules! or_skip {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(why) => {
                skipped(&why);
                return;
            }
        }
    };
}

#[test]
fn a_blank_device_is_a_disk() {
    let device = or_skip!(Loop::new(8 * MIB));
    let target = Target::new(&device.path);
    let disk = open(&target, &Options::new(0)).unwrap();
    assert_eq!(disk.bytes(), 8 * MIB);
    let text = refusal_of(&target, &Options::new(0));
    assert!(text.contains("is in use by this process"), "{text}");
    drop(disk);
    assert_eq!(open(&target, &Options::new(4 * MIB).create()).unwrap().bytes(), 4 * MIB);
    let text = refusal_of(&target, &Options::new(16 * MIB).create());
    assert!(text.contains("has 8 MiB, 16 MiB are asked for"), "{text}");
}

#[test]
fn a_device_with_something_on_it_is_refused_and_left_alone() {
    let device = or_skip!(Loop::new(8 * MIB));
    let path = device.path.to_str().unwrap();
    or_skip!(shell("mkfs.ext4", &["-q", path]));
    let before = fs::read(&device.backing).unwrap();
    let text = refusal(&device.path, &Options::new(0).create());
    assert!(text.contains("holds an ext2, ext3 or ext4 file system"), "{text}");
    assert!(text.contains("zero the first and the last MiB"), "{text}");
    let mount = or_skip!(Mount::new(&[path], device.place.path().join("mnt")));
    let text = refusal(&device.path, &Options::new(0));
    assert!(text.contains(&format!("is mounted at {}", mount.0.display())), "{text}");
    drop(mount);
    // A file system that is mounted is written to; so is one that was.
    let unmounted = fs::read(&device.backing).unwrap();
    let ours = Options::new(0).ours(|_| false);
    refusal(&device.path, &ours);
    assert!(unmounted == fs::read(&device.backing).unwrap() && unmounted.len() == before.len());
    // What it says to do is enough.
    let (of, zeroes) = (format!("of={path}"), "if=/dev/zero");
    or_skip!(shell("dd", &[zeroes, &of, "bs=1M", "count=1", "conv=fsync", "status=none"]));
    or_skip!(shell(
        "dd",
        &[zeroes, &of, "bs=1M", "seek=7", "conv=fsync", "count=1", "status=none"]
    ));
    drop(open(&Target::new(&device.path), &ours).unwrap());
}

#[test]
fn a_file_system_is_left_alone_byte_for_byte() {
    let device = or_skip!(Loop::new(8 * MIB));
    or_skip!(shell("mkfs.ext4", &["-q", device.path.to_str().unwrap()]));
    shell("sync", &[]).unwrap();
    let before = fs::read(&device.backing).unwrap();
    refusal(&device.path, &Options::new(0).create());
    // The same image as a plain file.
    refusal(&device.backing, &Options::new(0).create());
    shell("sync", &[]).unwrap();
    assert!(before == fs::read(&device.backing).unwrap(), "it was changed");
}

#[test]
fn a_partitioned_device_is_refused() {
    let device = or_skip!(Loop::new(8 * MIB));
    let path = device.path.to_str().unwrap();
    for (label, what) in [("dos", "an MBR partition table"), ("gpt", "a GPT partition table")] {
        let script =
            format!("printf 'label: {label}\\n,\\n' | sfdisk --quiet --no-reread --no-tell {path}");
        or_skip!(shell("sh", &["-c", &script]).map_err(|why| format!("{why}; install fdisk")));
        let text = refusal(&device.path, &Options::new(0));
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn swap_space_is_refused() {
    let device = or_skip!(Loop::new(8 * MIB));
    or_skip!(shell("mkswap", &[device.path.to_str().unwrap()]));
    let text = refusal(&device.path, &Options::new(0));
    assert!(text.contains("holds swap space"), "{text}");
}

#[test]
fn a_device_that_is_the_root_of_this_machine_is_refused() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (source, at) = (words.next()?, words.next()?);
        (at == "/" && source.starts_with("/dev/")).then(|| source.to_owned())
    });
    match root {
        Some(root) if is_root() && Path::new(&root).exists() => {
            let text = refusal(Path::new(&root), &Options::new(0));
            assert!(text.contains("is mounted at"), "{text}");
        }
        _ => skipped("/ is on no device that we may open"),
    }
}
