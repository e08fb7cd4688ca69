//! The memory of the table of connections: none without, and with more as it fills. Alone in its
//! program, so that nothing else allocates meanwhile.

mod frames;

use std::fs;
use std::net::Ipv4Addr;

use frames::*;

#[test]
fn connections_take_memory_as_there_are_more() {
    // What every frame takes, and what stateless rules let pass.
    let mut stateless = World::new(LEASED, "", "9.9.9.9");
    open(&mut stateless, 0..100);
    let before = resident_kib();
    open(&mut stateless, 100..5000);
    assert!(resident_kib() - before < 64);

    let mut world = World::new(LEASED, "", "in 9.9.9.9");
    let before = resident_kib();
    for (flows, kib_most) in [(0..1000, 3 * 1024), (1000..65_000, 6 * 1024)] {
        let last = flows.end;
        open(&mut world, flows);
        let kib = resident_kib() - before;
        println!("{last} connections: {kib} KiB");
        assert!(kib <= kib_most, "{kib} KiB for {last} connections");
    }
}

/// Connections to these servers, answered.
fn open(world: &mut World, servers: std::ops::Range<u32>) {
    for number in servers {
        let server = Ipv4Addr::from(0x0b00_0000 + number).to_string();
        // A few find their part of the table full.
        if world.send(udp(VM_IP, 5000, &server, 443, &[])).is_ok() {
            let answer = udp(&server, 443, VM_IP, 5000, &[]);
            assert_eq!(world.receive(inbound(answer)), Ok(()));
        }
    }
}

/// 0 where the system does not report it.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.map_or(0, |kib| kib.parse().unwrap())
}
