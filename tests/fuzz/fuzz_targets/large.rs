//! Fuzzes large segments: what is merged and cut is what was sent, byte by byte but for
//! identifications that have no meaning. Each six bytes of an input are a segment that a VM sends.
#![no_main]

#[path = "../../../src/endpoint/large/tests/model.rs"]
mod model;

use model::{ACK, Damage, PSH, Senders, Sent, comparable, cut};
use softnet::batch::{Batch, FRAMES_MAX};
use softnet::endpoint::large::{Carry, Run, spread};
use softnet::wire::virtio::{SegmentLen, VirtioHeader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut senders = Senders::new();
    let (chosen, _) = bytes.as_chunks();
    let sent = chosen.iter().take(FRAMES_MAX).map(sent);
    let frames: Vec<_> = sent.map(|sent| senders.frame(&sent)).collect();
    let expected: Vec<_> = frames.iter().map(|frame| comparable(frame)).collect();
    let (mut by_model, mut by_us) = (Vec::new(), Vec::new());
    let mut rest = frames.iter().map(Vec::as_slice);
    while let Some(first) = rest.next() {
        let written = match Run::of(first, rest.clone()) {
            None => [&[0; 10], first].concat(),
            Some(run) => {
                rest.nth(run.data.len() - 2);
                [&run.headers[..], &run.data.concat()].concat()
            }
        };
        by_model.extend(cut(&written).iter().map(|frame| comparable(frame)));
        read(&written, bytes.len(), &mut by_us);
    }
    assert!(by_model == expected, "merged to something else");
    assert!(by_us == expected, "cut to something else");
});

fn sent([flow, len, flags, skips, damage, details]: &[u8; 6]) -> Sent {
    let rarely = |bits: u8| u32::from(bits.saturating_sub(250));
    Sent {
        flow: usize::from(flow.saturating_sub(200) % 3),
        len: match len {
            0..160 => 1448,
            160..200 => 300,
            200 => 0,
            other => usize::from(*other) * 5 + 1,
        },
        flags: match flags {
            0..200 => ACK,
            200..230 => ACK | PSH,
            other => other.rotate_left(3),
        },
        skips: rarely(*skips),
        skips_id: rarely(details.rotate_left(1)) as u16,
        stamp: rarely(*details),
        window: 500 + rarely(details.rotate_left(2)) as u16,
        damage: match damage {
            0..248 => Damage::None,
            248..250 => Damage::IpChecksum,
            250..252 => Damage::TcpChecksum,
            _ => Damage::Data,
        },
        trailer: rarely(details.rotate_left(3)) as usize,
    }
}

/// What batches have of one read, which comes where others have been already.
fn read(written: &[u8], before: usize, frames: &mut Vec<Vec<u8>>) {
    let mut batch = Batch::new(1514);
    let mut carry = Carry::new();
    let first = before % FRAMES_MAX;
    let mut room = batch.room();
    let (header, frame) = VirtioHeader::split(written).unwrap();
    room.behind(first, 0)[..frame.len()].copy_from_slice(frame);
    let mut count = match header.segment_len() {
        None => {
            room.set_len(first, frame.len());
            1
        }
        Some(SegmentLen::Tcp(part)) => spread(&mut room, first, frame.len(), part, &mut carry),
        Some(SegmentLen::Unknown) => unreachable!("asks for nothing else"),
    };
    let mut start = first;
    loop {
        batch.set_received(start + count);
        let found = (start..start + count).map(|index| comparable(batch.frame(index)));
        frames.extend(found);
        if carry.is_empty() {
            return;
        }
        count = carry.restore(&mut batch.room());
        start = 0;
    }
}
