//! The cell under every order of its readers' and writers' steps: `make loom`.

use loom::sync::Arc;
use loom::thread;

use super::*;

fn grant(last: u8) -> Lease {
    Lease {
        address: Ipv4Addr::new(10, 0, 0, last),
        expires: Tick::from_secs(u32::from(last)),
    }
}

/// A cell with the first grant, and a thread that binds the second one meanwhile.
fn rebinding() -> (Arc<LeaseCell>, thread::JoinHandle<()>) {
    let cell = Arc::new(LeaseCell::default());
    cell.bind(&grant(1), Tick::ZERO);
    let writer = thread::spawn({
        let cell = Arc::clone(&cell);
        move || cell.bind(&grant(2), Tick::ZERO)
    });
    (cell, writer)
}

#[test]
fn loom_a_reader_never_sees_halves_of_two_grants() {
    loom::model(|| {
        let (cell, writer) = rebinding();
        let packed = cell.packed();
        assert_eq!(Tick::from_secs(packed.address() & 0xff), packed.expires());
        let seen = cell.lease().unwrap();
        assert!(seen == grant(1) || seen == grant(2), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(cell.lease(), Some(grant(2)));
    });
}

#[test]
fn loom_giving_up_an_address_never_takes_another_granted_meanwhile() {
    loom::model(|| {
        let (cell, writer) = rebinding();
        cell.give_up(0x0a00_0001);
        writer.join().unwrap();
        assert_eq!(cell.lease(), Some(grant(2)));
    });
}
