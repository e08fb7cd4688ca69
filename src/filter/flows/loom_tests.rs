//! The table under two threads, in every order of their steps: `make loom`.

use loom::sync::Arc;
use loom::thread;

use super::*;

const SYN: Kind = Kind::Tcp(2);

const fn key(peer: u32) -> Key {
    Key::new(6, 1000, peer, 80)
}

fn context() -> Context {
    Context {
        policy: 1,
        lease: 7,
        now: Tick::from_secs(100),
    }
}

/// A flow is found by either thread, wherever it was put.
#[test]
fn loom_two_threads_open_one_flow() {
    loom::model(|| {
        let flows = Arc::new(Flows::with_sets(1));
        let other = thread::spawn({
            let flows = Arc::clone(&flows);
            move || {
                flows
                    .open(Direction::Inbound, key(1), Kind::Udp, context())
                    .unwrap()
            }
        });
        flows
            .open(Direction::Outbound, key(1), Kind::Udp, context())
            .unwrap();
        other.join().unwrap();
        let found = flows.find(Direction::Outbound, key(1), Kind::Udp, context());
        assert_eq!(found, Found::Flow);
    });
}

/// A place that passes from one flow to another is never taken for that of the first, and no flow
/// is found that was never opened.
#[test]
fn loom_a_flow_that_is_replaced_is_found_as_itself_or_not_at_all() {
    loom::model(|| {
        let flows = Arc::new(Flows::with_sets(1));
        flows
            .open(Direction::Outbound, key(1), SYN, context())
            .unwrap();
        let other = thread::spawn({
            let flows = Arc::clone(&flows);
            move || {
                flows.cut(key(1), context());
                let later = Context {
                    policy: 2,
                    ..context()
                };
                flows.open(Direction::Outbound, key(2), SYN, later).unwrap();
            }
        });
        // The other side's answer to the first, and an answer that nobody asked for.
        let found = flows.find(Direction::Inbound, key(1), Kind::Tcp(18), context());
        assert!(matches!(found, Found::Flow | Found::Untracked), "{found:?}");
        let found = flows.find(Direction::Inbound, key(2), Kind::Tcp(18), context());
        assert!(
            matches!(found, Found::Stale { .. } | Found::Untracked),
            "{found:?}"
        );
        other.join().unwrap();
        let found = flows.find(Direction::Inbound, key(1), Kind::Tcp(18), context());
        assert_eq!(found, Found::Untracked);
        assert_eq!(flows.counts(), (1, 1));
    });
}
