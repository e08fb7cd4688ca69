//! Limits: what happens to a frame behind as many others.

use super::frames::*;

/// So many seconds after the last of more flows than there is room for, all answered.
pub(crate) fn in_a_full_table<const LATER: u32>(world: &mut World, frame: Frame) -> Outcome {
    for port in 1000..=65_535 {
        // Of which none has more than one server may have.
        for peer in ["6.7.8.9", "7.8.9.6", "8.9.6.7", "9.8.7.6"] {
            if world.send(udp(VM_IP, port, peer, 9, &[])).is_ok() {
                assert_eq!(
                    world.receive(inbound(udp(peer, 9, VM_IP, port, &[]))),
                    Ok(())
                );
            }
        }
    }
    world.now = world.now.after(LATER);
    world.send(frame)
}

/// Behind so many other datagrams to the same server, which it does not answer.
pub(crate) fn behind_unanswered<const OTHERS: u16>(world: &mut World, frame: Frame) -> Outcome {
    for port in 1000..1000 + OTHERS {
        let source = 34;
        let other = frame.clone().set(source, &port.to_be_bytes());
        assert_eq!(world.send(other), Ok(()));
    }
    world.send(frame)
}

/// Behind the first parts of so many other datagrams.
pub(crate) fn behind_parts<const OTHERS: u16>(world: &mut World, frame: Frame) -> Outcome {
    for id in 1..=OTHERS {
        let other = frame.clone().set(18, &id.to_be_bytes());
        assert_eq!(world.send(other), Ok(()));
    }
    world.send(frame)
}

pub(crate) fn behind<const OTHERS: usize>(world: &mut World, frame: Frame) -> Outcome {
    for _ in 0..OTHERS {
        assert_eq!(world.send(frame.clone()), Ok(()));
    }
    world.send(frame)
}
