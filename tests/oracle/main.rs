//! Two filters against each other: the real one, and a naive one made for this test.
//!
//! Generated scenes (network, rules, what is known, the lease) and sequences of frames in
//! both directions: after each frame both must have the same outcome, and have learned the
//! same. `ORACLE_CASES` sets the number of sequences, of some twenty frames each.

mod choices;
mod generate;
mod naive;
mod play;
mod scene;
mod sequences;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use softnet::filter::DropReason;

use crate::play::play;

#[test]
fn the_filter_and_the_naive_one_always_agree() {
    let cases = std::env::var("ORACLE_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let outcomes = RefCell::new(BTreeMap::new());
    let mut runner = TestRunner::new(Config {
        cases,
        // It is printed, and belongs into the corpus of tests/fuzz_replay.rs.
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&vec(any::<u8>(), 0..1024), |bytes| {
        play(&bytes, |outbound, outcome| {
            *outcomes
                .borrow_mut()
                .entry((outbound, outcome))
                .or_insert(0_u64) += 1;
        })
        .map_err(TestCaseError::fail)
    });
    let outcomes = outcomes.into_inner();
    println!("{} frames", outcomes.values().sum::<u64>());
    for ((outbound, label), count) in &outcomes {
        let way = if *outbound { "outbound" } else { "inbound" };
        println!("{count:>9} {way:<8} {label}");
    }
    match outcome {
        Err(TestError::Fail(disagreement, bytes)) => panic!("{disagreement}\nby {bytes:?}"),
        other => other.unwrap(),
    }
    assert_much_was_tried(&outcomes);
}

#[test]
fn both_agree_about_connections_as_time_passes_and_policies_change() {
    let outcomes = RefCell::new(BTreeMap::new());
    let mut runner = TestRunner::new(Config {
        cases: SEQUENCES,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&vec(any::<u8>(), 0..512), |bytes| {
        let count = |outbound, outcome| {
            *outcomes
                .borrow_mut()
                .entry((outbound, outcome))
                .or_insert(0_u64) += 1;
        };
        sequences::play(&bytes, count).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(disagreement, bytes)) = outcome {
        panic!("{disagreement}\nby {bytes:?}");
    }
    outcome.unwrap();
    let outcomes = outcomes.into_inner();
    println!("{outcomes:?}");
    for label in ["forward", "untracked"] {
        for outbound in [true, false] {
            assert!(outcomes[&(outbound, label)] > 1000, "{label}");
        }
    }
}

/// More connections than random sequences have.
#[test]
fn both_agree_about_a_flood_of_one_server() {
    let mut outcomes = BTreeMap::new();
    sequences::flood_a_server(|outcome| *outcomes.entry(outcome).or_insert(0) += 1).unwrap();
    // Of 7,800, 7,680; and of as many a minute later, the 64 of each second that have been forgotten.
    let forwarded = 7680 + 60 * 64;
    let expected = [
        ("forward", forwarded),
        ("server-limit", 2 * 7800 - forwarded),
    ];
    assert_eq!(outcomes, BTreeMap::from(expected));
}

/// What a fuzzer found worth keeping, or broke something once.
#[test]
fn both_agree_about_kept_sequences_of_connections() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/connections");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let outcome = sequences::play(&std::fs::read(&path).unwrap(), |_, _| {});
        assert_eq!(outcome, Ok(()), "{}", path.display());
        count += 1;
    }
    assert!(count > 20, "only {count} inputs in {folder}");
}

/// Agreement about frames that are all dropped for one reason would be worth nothing.
fn assert_much_was_tried(outcomes: &BTreeMap<(bool, &str), u64>) {
    let frames: u64 = outcomes.values().sum();
    let of = |label| {
        let both = [true, false].map(|outbound| outcomes.get(&(outbound, label)).copied());
        both.map(Option::unwrap_or_default)
    };
    for (forwarded, way) in of("forward").iter().zip(["outbound", "inbound"]) {
        assert!(
            *forwarded > frames / 20,
            "{forwarded} of {frames} forwarded {way}"
        );
    }
    for reason in DropReason::ALL {
        let elsewhere = [
            // It takes more packets than a case has: tests/drops.rs has them.
            DropReason::FlowsFull,
            DropReason::FragmentsFull,
            // A test of its own has them.
            DropReason::ServerLimit,
            // The forwarder gives these.
            DropReason::VmBusy,
            DropReason::VmRefused,
            DropReason::VmGone,
            DropReason::HostRefused,
            DropReason::Stopping,
        ];
        let dropped: u64 = of(reason.label()).iter().sum();
        assert!(
            dropped > 0 || elsewhere.contains(&reason),
            "{dropped} of {frames} dropped: {}",
            reason.label()
        );
    }
}

/// Sequences in an ordinary run, which takes some seconds.
const CASES: u32 = 10_000;
/// The same of connections.
const SEQUENCES: u32 = 2_000;
