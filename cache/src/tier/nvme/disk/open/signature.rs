//! What others leave at the beginning of a device: file systems, partition tables, and the like.
//!
//! Magic numbers as in the documentation of each and in `libblkid`. Some are short, so that what is
//! beside them has to make sense, too.

/// Bytes to look at, from the first on.
pub(super) const HEAD_BYTES: usize = 72 << 10;

/// Bytes at a place that tell what it is.
struct Magic {
    at: usize,
    bytes: &'static [u8],
    what: &'static str,
}

const fn magic(at: usize, bytes: &'static [u8], what: &'static str) -> Magic {
    Magic { at, bytes, what }
}

const MAGICS: &[Magic] = &[
    magic(512, b"EFI PART", "a GPT partition table"),
    magic(4096, b"EFI PART", "a GPT partition table"),
    magic(0, b"XFSB", "an xfs file system"),
    magic(0x10040, b"_BHRfS_M", "a btrfs file system"),
    magic(1024, b"\x10\x20\xf5\xf2", "an f2fs file system"),
    magic(1024, b"\xe2\xe1\xf5\xe0", "an erofs file system"),
    magic(0, b"hsqs", "a squashfs file system"),
    magic(
        4096 + 8,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
        "a bcachefs file system or a bcache device",
    ),
    magic(
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        "a bcache or bcachefs device",
    ),
    magic(3, b"NTFS    ", "an NTFS file system"),
    magic(3, b"EXFAT   ", "an exFAT file system"),
    magic(54, b"FAT1", "a FAT file system"),
    magic(82, b"FAT32   ", "a FAT file system"),
    magic(0x8001, b"CD001", "an ISO 9660 file system"),
    magic(0x10034, b"ReIsEr", "a ReiserFS file system"),
    magic(0x8000, b"JFS1", "a JFS file system"),
    magic(0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    magic(512, b"LABELONE", "an LVM physical volume"),
    magic(0, b"LABELONE", "an LVM physical volume"),
    magic(4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
    magic(0, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
    magic(4086, b"SWAPSPACE2", "swap space"),
    magic(65526, b"SWAPSPACE2", "swap space"),
    magic(0, b"bluestore block device", "a Ceph OSD"),
    magic(0, b"QFI\xfb", "a qcow2 image"),
    magic(0, b"COWD", "a VMware image"),
    magic(0, b"KDMV", "a VMware image"),
    magic(0, b"\x7fELF", "a program"),
    magic(0, b"\x1f\x8b\x08", "a gzip archive"),
    magic(0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    magic(257, b"ustar", "a tar archive"),
    magic(0, b"PK\x03\x04", "a zip archive"),
    magic(0, b"SQLite format 3\0", "an SQLite database"),
];

/// What `head`, the first bytes of a device or file, says that it is.
pub(super) fn recognise(head: &[u8]) -> Option<&'static str> {
    let found = MAGICS.iter().find(|magic| {
        head.get(magic.at..magic.at + magic.bytes.len()).is_some_and(|there| there == magic.bytes)
    });
    found.map(|magic| magic.what).or_else(|| ext(head)).or_else(|| master_boot_record(head))
}

/// Two bytes of magic in a super block whose other fields have narrow bounds.
fn ext(head: &[u8]) -> Option<&'static str> {
    let block = head.get(1024..2048)?;
    let word = |at| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (inodes, blocks, log_block, revision) = (word(0), word(4), word(24), word(76));
    let sensible = inodes > 0 && blocks > 0 && log_block <= 6 && revision <= 1;
    (block[56..58] == [0x53, 0xef] && sensible).then_some("an ext2, ext3 or ext4 file system")
}

/// Two bytes of magic behind four partitions, each active or not, and at least one with a type.
fn master_boot_record(head: &[u8]) -> Option<&'static str> {
    let sector = head.get(..512)?;
    let (partitions, _) = sector[446..510].as_chunks::<16>();
    let plain = partitions.iter().all(|partition| partition[0] & 0x7f == 0);
    let any = partitions.iter().any(|partition| partition[4] != 0);
    (sector[510..] == [0x55, 0xaa] && plain && any).then_some("an MBR partition table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_is_within_what_is_looked_at_and_found() {
        for Magic { at, bytes, what } in MAGICS {
            let mut head = vec![0; HEAD_BYTES];
            head[*at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(recognise(&head), Some(*what));
            // A short file is no reason to look beyond its end.
            assert_eq!(recognise(&head[..*at]), None);
        }
    }

    #[test]
    fn chance_is_not_taken_for_a_file_system() {
        let mut head = vec![0xff; HEAD_BYTES];
        assert_eq!(recognise(&head), None);
        head[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&head), None);
        assert_eq!(recognise(&[]), None);
        assert_eq!(recognise(&vec![0; HEAD_BYTES]), None);
    }

    #[test]
    fn a_partition_is_recognised() {
        let mut head = vec![0; HEAD_BYTES];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&head), None);
        head[446] = 0x80;
        head[450] = 0x83;
        assert_eq!(recognise(&head), Some("an MBR partition table"));
    }
}
