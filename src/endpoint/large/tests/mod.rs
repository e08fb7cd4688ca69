//! Merging and splitting against a model that shares no code with them: see model.rs.

mod model;
mod senders;

use proptest::prelude::*;

use self::model::cut;
use self::senders::{ACK, Damage, PSH, Senders, Sent, comparable, segment};
use super::{Carry, Run, spread};
use crate::batch::{Batch, FRAMES_MAX, LARGE};
use crate::wire::virtio::{SegmentLen, VirtioHeader};

/// What is written for these frames.
fn write(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut writes = Vec::new();
    let mut rest = frames.iter().map(Vec::as_slice);
    while let Some(first) = rest.next() {
        let Some(run) = Run::of(first, rest.clone()) else {
            writes.push([&[0; 10], first].concat());
            continue;
        };
        assert!(run.data.len() > 1);
        rest.nth(run.data.len() - 2);
        writes.push([&run.headers[..], &run.data.concat()].concat());
    }
    writes
}

/// What batches have of these reads. A read that begins a batch may go on in the next.
fn read(reads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut carry = Carry::new();
    let mut batch = Batch::new(1514);
    let mut reads = reads.iter();
    loop {
        let mut room = batch.room();
        let mut count = carry.restore(&mut room);
        while count < FRAMES_MAX && carry.is_empty() {
            let Some(read) = reads.next() else { break };
            let bytes = room.behind(count, VirtioHeader::LEN);
            bytes[..read.len()].copy_from_slice(read);
            let (header, frame) = VirtioHeader::split(read).unwrap();
            let len = frame.len();
            match header.segment_len() {
                None => {
                    room.set_len(count, len);
                    count += 1;
                }
                Some(SegmentLen::Tcp(part)) => {
                    count += spread(&mut room, count, len, part, &mut carry);
                }
                Some(SegmentLen::Unknown) => panic!("asks for nothing else"),
            }
        }
        if count == 0 {
            return frames;
        }
        batch.set_received(count);
        frames.extend((0..count).map(|index| batch.frame(index).to_vec()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_merged_and_cut_is_what_was_sent(
        sent in prop::collection::vec(segment(), 1..FRAMES_MAX),
    ) {
        let mut senders = Senders::new();
        let frames: Vec<_> = sent.iter().map(|sent| senders.frame(sent)).collect();
        let writes = write(&frames);
        let expected: Vec<_> = frames.iter().map(|frame| comparable(frame)).collect();
        let by_model: Vec<_> = writes.iter().flat_map(|written| cut(written)).collect();
        let by_model: Vec<_> = by_model.iter().map(|frame| comparable(frame)).collect();
        prop_assert_eq!(&by_model, &expected);
        let by_us: Vec<_> = read(&writes).iter().map(|frame| comparable(frame)).collect();
        prop_assert_eq!(&by_us, &expected);
    }

    /// Whoever is on the same bridge may write anything, and a header may say anything about it.
    #[test]
    fn no_bytes_can_do_harm(
        mut frame in prop::collection::vec(any::<u8>(), 0..4000),
        like_tcp in any::<bool>(),
        part in any::<u16>(),
        header in any::<[u8; 10]>(),
        index in 0..FRAMES_MAX,
    ) {
        if like_tcp && frame.len() > 54 {
            let total = u16::try_from(frame.len() - 14).unwrap();
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame[20..22].fill(0);
            frame[23] = 6;
        }
        let (virtio, _) = VirtioHeader::split(&header).unwrap();
        virtio.complete_checksum(&mut frame.clone());
        prop_assert!(Run::of(&frame, [&frame[..], &frame[..]].into_iter()).is_none_or(|run| run.data.len() > 1));
        let mut batch = Batch::new(1514);
        let mut carry = Carry::new();
        let mut room = batch.room();
        room.behind(index, 0)[..frame.len()].copy_from_slice(&frame);
        let count = spread(&mut room, index, frame.len(), part, &mut carry);
        prop_assert!(count >= 1 && index + count <= FRAMES_MAX);
        batch.set_received(index + count);
        let total: usize = (index..index + count).map(|it| batch.frame(it).len()).sum();
        prop_assert!(total > 0);
        // What is carried comes to an end.
        for _ in 0..2000 {
            if carry.is_empty() {
                return Ok(());
            }
            let count = carry.restore(&mut batch.room());
            prop_assert!((1..=FRAMES_MAX).contains(&count));
        }
        prop_assert!(false, "it carries for ever");
    }
}

/// One connection that sends as fast as it can.
fn stream(count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut senders = Senders::new();
    let sent = Sent {
        flow: 0,
        len,
        flags: ACK,
        skips: 0,
        skips_id: 0,
        stamp: 0,
        window: 500,
        damage: Damage::None,
        trailer: 0,
    };
    (0..count).map(|_| senders.frame(&sent)).collect()
}

#[test]
fn a_batch_of_one_connection_is_two_writes() {
    // 44 segments of 1448 bytes are less than 64 KiB, with room for the longest headers, and 45
    // would be as well; the next part begins another.
    let writes = write(&stream(FRAMES_MAX, 1448));
    let lens: Vec<_> = writes.iter().map(Vec::len).collect();
    assert_eq!(lens, [10 + 54 + 45 * 1448, 10 + 54 + 19 * 1448]);
    assert!(lens[0] < LARGE);
}

#[test]
fn segments_that_are_small_or_that_alternate_go_alone() {
    assert_eq!(write(&stream(10, 255)).len(), 10);
    assert_eq!(write(&stream(10, 256)).len(), 1);
    let [mut one, mut two] = [stream(10, 1000), stream(10, 1000)];
    two.iter_mut().for_each(|frame| {
        frame[36] ^= 1;
    });
    let alternating: Vec<_> = one
        .drain(..)
        .zip(two.drain(..))
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert_eq!(write(&alternating).len(), 20);
}

#[test]
fn a_damaged_segment_goes_alone_and_the_others_without_it() {
    let mut frames = stream(9, 1448);
    frames[4][60] ^= 1;
    let writes = write(&frames);
    let lens: Vec<_> = writes.iter().map(Vec::len).collect();
    let of = |count: usize| 10 + 54 + count * 1448;
    assert_eq!(lens, [of(4), of(1), of(4)]);
    assert_eq!(writes[1][10..], frames[4]);
}

#[test]
fn what_does_not_fit_into_a_batch_is_carried_into_the_next_ones() {
    // 218 segments of 300 bytes: more than three batches.
    let frames = stream(1, 300 * 218 - 1);
    let mut large = vec![1, 1, 54, 0, 44, 1, 34, 0, 16, 0];
    large.extend(&frames[0]);
    let expected: Vec<_> = cut(&large);
    assert_eq!(expected.len(), 218);
    let read = read(&[large.clone(), large]);
    assert_eq!(read[..218], expected);
    assert_eq!(read[218..], expected);
}

/// FIN and PSH end it, and the first part alone tells that the sender has slowed down.
#[test]
fn the_flags_of_a_large_segment_go_to_the_parts_that_they_are_for() {
    for flags in [ACK | 0x80, ACK | PSH | 1, ACK | PSH | 0x80 | 1, ACK | 0x40] {
        let mut frame = stream(1, 20 * 1448).remove(0);
        frame[47] = flags;
        let mut large = vec![1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0];
        large.extend(&frame);
        assert_eq!(read(&[large.clone()]), cut(&large), "{flags:x}");
    }
}

#[test]
fn what_is_no_segment_over_ipv4_is_dropped_as_too_long() {
    let sound = stream(1, 5 * 1448).remove(0);
    let mut others = [(); 4].map(|()| sound.clone());
    // A VLAN tag, IPv6, options of IPv4, and a length that is another.
    others[0].splice(12..12, [0x81, 0, 0, 7]);
    others[1][12..14].copy_from_slice(&[0x86, 0xdd]);
    others[2][14] = 0x46;
    others[3][17] ^= 1;
    for (frame, part) in others.iter().map(|it| (it, 1448)).chain([(&sound, 1500)]) {
        let mut batch = Batch::new(1514);
        let mut carry = Carry::new();
        let mut room = batch.room();
        room.behind(3, 0)[..frame.len()].copy_from_slice(frame);
        assert_eq!(spread(&mut room, 3, frame.len(), part, &mut carry), 1);
        batch.set_received(4);
        assert!(batch.frame(3).len() > 1514 && carry.is_empty());
    }
}
