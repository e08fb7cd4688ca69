//! What the VM is told about frames that its policy refuses, through the whole forwarder.

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::{
    Bridge, HAND_OVERS, TART_SNDBUF, eventually, filtering_bridge, filtering_bridge_with, options,
};
use softnet::direction::Direction;
use softnet::filter::DropReason;
use softnet::forward::HandOver;

/// The host's side sends nothing meanwhile, so the answer itself must wake the inbound thread.
#[test]
fn a_refused_connection_is_reset_at_once() {
    for hand_over in HAND_OVERS {
        let Bridge { vm, forwarding, .. } = filtering_bridge(hand_over, TART_SNDBUF);
        for _ in 0..20 {
            let start = Instant::now();
            vm.send(&common::refused()).unwrap();
            let mut answer = [0; 2048];
            assert_eq!(vm.recv(&mut answer).unwrap(), 54, "{hand_over:?}");
            assert!(start.elapsed() < Duration::from_secs(1), "{hand_over:?}");
            // From the peer's port to the VM's, with RST.
            assert_eq!(answer[26..30], [10, 1, 2, 3]);
            assert_eq!(answer[34..36], 443_u16.to_be_bytes());
            assert_eq!(answer[47] & 0x04, 0x04);
        }
        let [outbound, inbound] = forwarding.finish();
        assert_eq!(outbound.dropped[DropReason::DestinationPrivate.index()], 20);
        assert_eq!((inbound.answers, inbound.forwarded), (20, 21));
        assert!(outbound.balance() && inbound.balance(), "{inbound:?}");
    }
}

#[test]
fn without_the_option_nothing_comes() {
    let bridge = filtering_bridge_with(&options(HandOver::Auto), TART_SNDBUF);
    bridge.vm.send(&common::refused()).unwrap();
    let wait = Some(Duration::from_millis(100));
    bridge.vm.set_read_timeout(wait).unwrap();
    let nothing = bridge.vm.recv(&mut [0; 2048]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let [_, inbound] = bridge.forwarding.finish();
    assert_eq!(inbound.answers, 0);
}

#[test]
fn answers_are_few_and_come_between_frames_of_the_host() {
    let Bridge {
        vm,
        host,
        forwarding,
        ..
    } = filtering_bridge(HandOver::Auto, TART_SNDBUF);
    let (frame, refused) = (common::inbound(&[7; 100]), common::refused());
    let mut buffer = [0; 2048];
    let (mut frames, mut answers) = (0, 0);
    let start = Instant::now();
    for _ in 0..2000 {
        vm.send(&refused).unwrap();
        host.send(&frame).unwrap();
        while frames < 2000 {
            match vm.recv(&mut buffer).unwrap() {
                54 => answers += 1,
                len => {
                    assert_eq!(buffer[..len], frame);
                    frames += 1;
                    break;
                }
            }
        }
    }
    assert_eq!(frames, 2000);
    let most = 100 + 100 * (start.elapsed().as_secs() + 1);
    assert!((50..=most).contains(&answers), "{answers} of {most}");
    // The last of them may not have been looked at yet.
    let dropped = DropReason::DestinationPrivate.index();
    eventually("all are dropped", || {
        forwarding.counts(Direction::Outbound).dropped[dropped] == 2000
    });
    assert!(forwarding.finish().iter().all(|counts| counts.balance()));
}
