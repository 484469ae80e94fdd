//! Writes, reads, messages and mappings.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn writes_and_reads_lose_no_byte(
        len in prop_oneof![0..300u64, 65_000..66_000u64, 0..3_000_000u64],
        at in 0..5000u64,
        threads in 0..3usize,
        seed: u64,
    ) {
        const GUARD: u64 = 5000;
        let mut pair = Pair::of(Config::new().copy_threads(threads), Config::new());
        let size = (at + len + GUARD) as usize;
        let (theirs, there) = pair.b.region(size);
        let (ours, here) = pair.a.region(size);
        there.fill(0..size, 0xee).unwrap();
        let sent = pattern(len as usize, seed);
        here.write_at(7, &sent[..sent.len().min(size - 7)]).unwrap();
        let remote = pair.b.grant(theirs, at..at + len, ALL());
        let range = 7..7 + len;
        let status = pair.run(write(local(ours, &here, range), remote, Some(3)));
        prop_assert_eq!(status, Status::Done);
        // Visible before announced: the bytes are there when the immediate is.
        let immediate = pair.until("an immediate", |_, b| b.arrived());
        prop_assert_eq!(immediate, Immediate(3));
        let (start, end) = (at as usize, (at + len) as usize);
        prop_assert_eq!(&bytes(&there, start..end), &sent);
        prop_assert!(bytes(&there, 0..start).iter().all(|&byte| byte == 0xee));
        prop_assert!(bytes(&there, end..size).iter().all(|&byte| byte == 0xee));

        here.fill(0..size, 0).unwrap();
        let back = local(ours, &here, 11..11 + len);
        let read = Work::Read { local: back, remote, pages: None, immediate: Some(Immediate(4)) };
        prop_assert_eq!(pair.run(read), Status::Done);
        prop_assert_eq!(pair.until("an immediate", |_, b| b.arrived()), Immediate(4));
        prop_assert_eq!(&bytes(&here, 11..11 + len as usize), &sent);
        prop_assert_eq!(bytes(&here, 0..11), vec![0; 11]);
    }
}

#[test]
fn beyond_four_gigabytes() {
    const FAR: u64 = (4 << 30) + (1 << 20);
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(FAR as usize + 4096);
    let (ours, here) = pair.a.region(4096);
    here.write_at(0, b"far away").unwrap();
    let mut remote = pair.b.grant(theirs, 0..FAR + 4096, ALL());
    remote.offset = FAR + 4088;
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    assert_eq!(bytes(&there, FAR as usize + 4088..FAR as usize + 4096), b"far away");
    remote.offset += 1;
    let status = pair.run(write(local(ours, &here, 0..8), remote, None));
    assert_eq!(status, Status::Refused(Reason::OutOfBounds));
}

#[test]
fn messages_arrive_in_order_and_once() {
    let mut pair = Pair::new();
    let (mut sent, mut received) = (0u32, 0u32);
    let mut busy = 0;
    while received < 20_000 {
        let bytes = vec![sent as u8; sent as usize % 1500];
        let work = Work::Send { bytes: &bytes, immediate: Some(Immediate(sent)) };
        match pair.a.post(pair.to_b, work).1 {
            Posted::Done => sent += 1,
            Posted::Busy => {
                busy += 1;
                pair.b.poll();
            }
            answer => panic!("{answer:?}"),
        }
        while let Some(bytes) = pair.b.message() {
            assert_eq!(bytes, vec![received as u8; received as usize % 1500]);
            assert_eq!(pair.b.arrived(), Some(Immediate(received)));
            received += 1;
        }
    }
    assert!(busy > 0, "the ring was never full");
}

#[test]
fn long_messages_are_refused() {
    let mut pair = Pair::new();
    let max = pair.a.fabric.limits().message_bytes_max;
    let bytes = pattern(max + 1, 1);
    let long = Work::Send { bytes: &bytes, immediate: None };
    assert_eq!(pair.run(long), Status::Refused(Reason::TooLong));
    assert_eq!(pair.run(Work::Send { bytes: &bytes[..max], immediate: None }), Status::Done);
    assert_eq!(pair.until("a message", |_, b| b.message()), bytes[..max]);
    assert_eq!(pair.run(Work::Send { bytes: &[], immediate: None }), Status::Done);
    assert_eq!(pair.until("a message", |_, b| b.message()), b"");
}

#[test]
fn messages_nobody_takes_hold_no_immediate_up() {
    let mut pair = Pair::new();
    let (theirs, _there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    pair.b.messages_max = 0;
    assert_eq!(pair.run(Work::Send { bytes: b"later", immediate: None }), Status::Done);
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, Some(1))), Status::Done);
    assert_eq!(pair.until("an immediate", |_, b| b.arrived()), Immediate(1));
    assert_eq!(pair.b.message(), None);
    assert!(pair.b.fabric.arm(), "a message that is not wanted is no work");
    pair.b.messages_max = 1;
    assert_eq!(pair.until("a message", |_, b| b.message()), b"later");
}

#[test]
fn immediates_without_room_are_owed() {
    const IMMEDIATES: u32 = 20_000;
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let mut pending = Vec::new();
    for number in 0..IMMEDIATES {
        here.write_at(0, &number.to_le_bytes()).unwrap();
        let (op, answer) =
            pair.a.post(pair.to_b, write(local(ours, &here, 0..4), remote, Some(number)));
        match answer {
            Posted::Done => assert!(pending.is_empty(), "overtaken"),
            Posted::Pending => pending.push(op),
            answer => panic!("{answer:?}"),
        }
    }
    assert!(!pending.is_empty(), "the ring was never full");
    assert_eq!(bytes(&there, 0..4), (IMMEDIATES - 1).to_le_bytes());
    pair.a.poll();
    assert!(pair.a.events.is_empty(), "{:?}", pair.a.events);
    // One that is cancelled is delivered no more.
    let cancelled = pending.pop().unwrap();
    pair.a.fabric.cancel(cancelled, Reason::Deadline);
    pair.a.poll();
    assert_eq!(pair.a.status(cancelled), Some(Status::Stopped(Reason::Deadline)));
    let mut next = 0;
    pair.until("all immediates", |_, b| {
        for event in b.events.drain(..) {
            assert!(matches!(event, Event::Arrived { immediate: Immediate(it) } if it == next));
            next += 1;
        }
        (next == IMMEDIATES - 1).then_some(())
    });
    for op in pending {
        assert_eq!(pair.a.status(op), Some(Status::Done));
    }
}

#[test]
fn a_cancelled_copy_stops_between_chunks() {
    const LEN: u64 = 8 << 20;
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(LEN as usize);
    let (ours, here) = pair.a.region(LEN as usize);
    here.fill(0..LEN as usize, 1).unwrap();
    let remote = pair.b.grant(theirs, 0..LEN, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let all = write(local(ours, &here, 0..LEN), remote, Some(9));
    let (unbegun, answer) = pair.a.post(pair.to_b, all);
    assert_eq!(answer, Posted::Pending);
    pair.a.fabric.cancel(unbegun, Reason::Cancelled);
    pair.a.poll();
    assert_eq!(pair.a.status(unbegun), Some(Status::Refused(Reason::Cancelled)));
    let (begun, _) = pair.a.post(pair.to_b, all);
    pair.a.poll();
    pair.a.fabric.cancel(begun, Reason::Deadline);
    pair.a.poll();
    assert_eq!(pair.a.status(begun), Some(Status::Stopped(Reason::Deadline)));
    let copied = bytes(&there, 0..LEN as usize).iter().filter(|&&byte| byte == 1).count();
    assert!((8..LEN as usize).contains(&copied), "{copied} bytes");
    pair.b.poll();
    assert_eq!(pair.b.arrived(), None);
}

#[test]
fn an_operation_waiting_for_its_mapping_can_be_cancelled() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(4096);
    let (ours, here) = pair.a.region(4096);
    here.fill(0..4096, 1).unwrap();
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    let work = write(local(ours, &here, 0..8), remote, None);
    let (first, answer) = pair.a.post(pair.to_b, work);
    assert_eq!(answer, Posted::Pending);
    let (second, _) = pair.a.post(pair.to_b, write(local(ours, &here, 8..12), remote, None));
    pair.a.fabric.cancel(first, Reason::Deadline);
    assert_eq!(pair.until("it", |a, _| a.status(first)), Status::Refused(Reason::Deadline));
    assert_eq!(pair.until("the other", |a, _| a.status(second)), Status::Done);
    assert_eq!(bytes(&there, 0..8), [1, 1, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_region_can_be_mapped_and_given_away() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(8192);
    there.write_at(100, b"shared").unwrap();
    let remote = pair.b.grant(theirs, 0..8192, Access::MAP | Access::READ);
    let (op, answer) = pair.a.post(pair.to_b, Work::Map { remote });
    assert_eq!(answer, Posted::Pending);
    let (at, events) = pair.until("a mapping", |a, _| {
        let at = a.events.iter().position(|event| matches!(event, Event::Mapped { .. }))?;
        Some((at, std::mem::take(&mut a.events)))
    });
    let Some(Event::Mapped { op: mapped, memory, offset, len }) = events.into_iter().nth(at) else {
        unreachable!()
    };
    assert_eq!((mapped, offset, len), (op, 0, 8192));
    assert_eq!(bytes(&memory, 100..106), b"shared");
    assert!(memory.write_at(0, b"x").is_err(), "the window grants no writes");

    let unmappable = pair.b.grant(theirs, 0..4096, ALL());
    let status = pair.run(Work::Map { remote: unmappable });
    assert_eq!(status, Status::Refused(Reason::Denied));
}

#[test]
fn a_region_that_is_gone_is_unmapped() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(1 << 20);
    let (ours, here) = pair.a.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    assert_eq!(pair.run(write(local(ours, &here, 0..8), remote, None)), Status::Done);
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    pair.b.fabric.revoke(remote.window);
    pair.until("a fence", |_, b| b.revoked(remote.window));
    let before = mappings();
    pair.b.fabric.deregister(theirs);
    drop(there);
    // Other tests map and unmap meanwhile; the message proves that `Forget` was heard before.
    let status = pair.run(write(local(ours, &here, 0..8), remote, None));
    assert_eq!(status, Status::Refused(Reason::Stale));
    let _ = before;
}

#[test]
fn foreign_memory_is_a_source_but_no_window() {
    let mut pair = Pair::new();
    let (theirs, there) = pair.b.region(4096);
    let remote = pair.b.grant(theirs, 0..4096, ALL());
    let mut owner = Box::new([5u8; 64]);
    let ptr = owner.as_mut_ptr();
    // SAFETY: the box is the owner, and nobody else refers to it.
    let foreign = Arc::new(unsafe { Memory::foreign(ptr, 64, owner) });
    let ours = pair.a.register(&foreign);
    let status = pair.run(write(local(ours, &foreign, 0..64), remote, None));
    assert_eq!(status, Status::Done);
    assert_eq!(bytes(&there, 0..64), [5; 64]);
    let window = WindowId { slot: 9, generation: 0 };
    let grant = Grant { window, region: ours, offset: 0, len: 64, access: ALL() };
    let error = pair.a.fabric.grant(&grant).unwrap_err().to_string();
    assert!(error.contains("foreign") && error.contains("HostMemory"), "{error}");
}
