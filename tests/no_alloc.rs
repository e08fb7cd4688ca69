//! Once frames flow, no thread allocates: neither while the other side keeps up, nor while it
//! is full and batches go round through the writer, nor for a DHCP exchange whose messages
//! are rewritten, nor for an answer to a frame that is refused.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Bridge, HAND_OVERS, eventually, filtering_bridge};
use softnet::direction::Direction;
use softnet::forward::HandOver;
use softnet::stats::Counts;

/// Counts what it passes on to the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test only: another at the same time would be counted too.
#[test]
fn no_thread_allocates_once_frames_flow() {
    assert!(
        allocations(|| drop(Box::new(7))) > 0,
        "the allocator does not count"
    );
    for hand_over in HAND_OVERS {
        let Bridge {
            vm,
            host,
            forwarding,
            ..
        } = filtering_bridge(hand_over, queue(hand_over));
        let (out, back) = (common::outbound(&[7; 1000]), common::inbound(&[7; 1000]));
        // From the VM this has the gateway's MAC: dropped.
        let forged = common::inbound(&[7; 1000]);
        let refused = common::refused();
        let (request, ack) = (common::dhcp_request(), common::dhcp_ack());
        let mut counted = [0; ROUNDS];
        for counted in &mut counted {
            *counted = allocations(|| {
                for _ in 0..1_000 {
                    vm.send(&forged).unwrap();
                    exchange(&vm, &host, &out);
                    exchange(&host, &vm, &back);
                }
                for _ in 0..10 {
                    vm.send(&refused).unwrap();
                    assert_eq!(vm.recv(&mut [0; 2048]).unwrap(), RESET_LEN);
                }
                exchange(&vm, &host, &request);
                exchange(&host, &vm, &ack);
                fill_and_drain(&vm, &host, &out, || forwarding.counts(Direction::Outbound));
                fill_and_drain(&host, &vm, &back, || forwarding.counts(Direction::Inbound));
            });
        }
        assert_eq!(
            counted[WARM_UP..],
            [0; ROUNDS - WARM_UP],
            "{hand_over:?} {counted:?}"
        );
        let outbound = forwarding.counts(Direction::Outbound);
        let inbound = forwarding.counts(Direction::Inbound);
        assert!(
            outbound.waits > 0 && inbound.waits > 0,
            "nobody was full: {outbound:?}"
        );
        let _ = forwarding.finish();
    }
}

/// What a socket's queue holds: little, to be full soon; to alternate, several batches.
fn queue(hand_over: HandOver) -> usize {
    match hand_over {
        HandOver::Load => 1 << 20,
        _ => 64 << 10,
    }
}

/// The test's own side settles in the first round.
const WARM_UP: usize = 1;
const ROUNDS: usize = 4;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Three headers.
const RESET_LEN: usize = 14 + 20 + 20;

type End = std::os::unix::net::UnixDatagram;

fn exchange(from: &End, to: &End, frame: &[u8]) {
    let mut buffer = [0; 2048];
    from.send(frame).unwrap();
    assert_eq!(to.recv(&mut buffer).unwrap(), frame.len());
}

/// Sends until all is full on the way, then receives until every frame has come to its end.
fn fill_and_drain(from: &End, to: &End, frame: &[u8], counts: impl Fn() -> Counts) {
    from.set_nonblocking(true).unwrap();
    to.set_nonblocking(true).unwrap();
    let mut expected = counts().received;
    for _ in 0..10 {
        while from.send(frame).is_ok() {
            expected += 1;
        }
        thread::sleep(Duration::from_millis(3));
    }
    let mut buffer = [0; 2048];
    eventually("the way is empty again", || {
        let now = counts();
        let all_ended = now.received == expected && now.balance();
        while to.recv(&mut buffer).is_ok() {}
        all_ended
    });
    from.set_nonblocking(false).unwrap();
    to.set_nonblocking(false).unwrap();
}
