//! Large segments at real TAPs: what one sends, another receives, frame by frame, whichever of the
//! two reads and writes large segments.
#![cfg(target_os = "linux")]

#[path = "offload/fuzz.rs"]
mod fuzz;
mod program;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{Ipv4Header, TcpHeader, UdpHeader};
use program::{as_root, ip, sh};
use softnet::batch::{Batch, FRAMES_MAX};
use softnet::endpoint::tap::{FromTap, Offload, Tap, ToTap};
use softnet::endpoint::{Endpoint, Received, Sent, Sink, Source};

const HERE: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const THERE: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// Two TAPs at one bridge, without anything else that talks.
struct Bridged {
    sink: ToTap,
    source: FromTap,
}

impl Bridged {
    fn new(here: Offload, there: Offload) -> Self {
        show_devices();
        ip("link add br0 type bridge");
        let [here, there] = [("off0", here), ("off1", there)].map(|(name, offload)| {
            let tap = Tap::open(name, offload).unwrap();
            assert!(tap.refused().is_none(), "{:?}", tap.refused());
            ip(&format!("link set {name} master br0"));
            tap
        });
        for name in ["br0", "off0", "off1"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        }
        ip("link set br0 up");
        for port in ["off0", "off1"] {
            let state = format!("/sys/class/net/{port}/brport/state");
            while fs::read_to_string(&state).unwrap().trim() != "3" {
                thread::sleep(Duration::from_millis(2));
            }
        }
        let (_, sink) = here.split();
        let (source, _) = there.split();
        Self { sink, source }
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        for frames in frames.chunks(FRAMES_MAX) {
            let mut batch = filled(frames);
            assert!(matches!(self.sink.send(&mut batch), Sent::All));
            assert_eq!(batch.pending().len(), 0);
        }
    }

    /// The next frames that come out.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        receive(&mut self.source, count)
    }

    /// How many writes there have been.
    fn writes(&self) -> usize {
        let path = "/sys/class/net/off0/statistics/rx_packets";
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }
}

fn filled(frames: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(1514);
    let (slots, lens) = batch.fill(frames.len());
    for ((slot, len), frame) in slots.zip(lens).zip(frames) {
        slot[..frame.len()].copy_from_slice(frame);
        *len = u32::try_from(frame.len()).unwrap();
    }
    batch.set_received(frames.len());
    (0..frames.len()).for_each(|index| batch.queue(index));
    batch
}

fn receive(source: &mut FromTap, count: usize) -> Vec<Vec<u8>> {
    let patience = Instant::now() + Duration::from_secs(5);
    let mut batch = Batch::new(1514);
    let mut frames = Vec::new();
    while frames.len() < count {
        match source.recv(&mut batch, FRAMES_MAX) {
            Received::Frames => {
                let received = (0..batch.received()).map(|index| batch.frame(index).to_vec());
                // The bridge itself asks its ports about groups.
                frames.extend(received.filter(|frame| frame[0] & 1 == 0));
            }
            Received::Nothing => thread::sleep(Duration::from_millis(1)),
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < patience, "{} of {count}", frames.len());
    }
    frames
}

/// Compares without the identification where fragments are forbidden, and without the checksum that
/// depends on it.
#[track_caller]
fn assert_same(received: &[Vec<u8>], sent: &[Vec<u8>]) {
    let without_id = |frame: &Vec<u8>| {
        let mut frame = frame.clone();
        if frame[20] & 0x40 != 0 {
            frame[18..20].fill(0);
            frame[24..26].fill(0);
        }
        frame
    };
    assert_eq!(received.len(), sent.len());
    let mut pairs = received.iter().zip(sent);
    let other = pairs.position(|(ours, theirs)| without_id(ours) != without_id(theirs));
    assert_eq!(other, None, "the first frame that is another");
}

/// A frame with right checksums, which forbids fragments.
fn frame(macs: [[u8; 6]; 2], to: [u8; 4], id: u16, mut tcp: TcpHeader, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(tcp.header_len() + data.len()).unwrap();
    let mut ip = Ipv4Header::new(len, 64, 6.into(), [192, 168, 64, 2], to).unwrap();
    ip.identification = id;
    ip.header_checksum = ip.calc_header_checksum();
    tcp.checksum = tcp.calc_checksum_ipv4(&ip, data).unwrap();
    let [from, there] = macs;
    [
        &there[..],
        &from,
        &[8, 0],
        &ip.to_bytes(),
        &tcp.to_bytes(),
        data,
    ]
    .concat()
}

/// A connection that sends as fast as it can, segment by segment from this one on.
fn stream_to(mac: [u8; 6], to: [u8; 4], sequence: u32, count: usize, len: usize) -> Vec<Vec<u8>> {
    let segment = |index: usize| {
        let before = u32::try_from(index * len).unwrap();
        let data: Vec<u8> = (0..len)
            .map(|at| u8::try_from((at * 7 + index) % 251).unwrap())
            .collect();
        let mut tcp = TcpHeader::new(40_000, 443, sequence.wrapping_add(before), 500);
        (tcp.ack, tcp.acknowledgment_number) = (true, 77);
        frame([HERE, mac], to, u16::try_from(index).unwrap(), tcp, &data)
    };
    (0..count).map(segment).collect()
}

fn stream(sequence: u32, count: usize, len: usize) -> Vec<Vec<u8>> {
    stream_to(THERE, [192, 168, 64, 3], sequence, count, len)
}

/// A TAP that is the host's own, with a neighbour who has the VM's address.
fn at_the_host(offload: Offload) -> (FromTap, ToTap, [u8; 6]) {
    show_devices();
    let (source, sink) = Tap::open("off0", offload).unwrap().split();
    ip("addr add 192.168.64.1/24 dev off0");
    ip("neigh add 192.168.64.2 lladdr 52:54:00:00:00:01 dev off0");
    let mac = fs::read_to_string("/sys/class/net/off0/address").unwrap();
    let mac = mac.trim().split(':');
    let mut bytes = mac.map(|byte| u8::from_str_radix(byte, 16).unwrap());
    (source, sink, std::array::from_fn(|_| bytes.next().unwrap()))
}

/// /sys shows the devices of the namespace that it was mounted in.
fn show_devices() {
    sh("mount -t sysfs sysfs /sys");
}

const OFFLOADS: [Offload; 2] = [Offload::Auto, Offload::Off];

#[test]
fn what_is_sent_is_received_whoever_uses_large_segments() {
    for here in OFFLOADS {
        for there in OFFLOADS {
            as_root(move || {
                let mut bridged = Bridged::new(here, there);
                // Also where sequence numbers wrap around, and with fewer bytes at the end.
                let mut frames = stream(u32::MAX - 100_000, 300, 1448);
                frames.extend(stream(5, 3, 700));
                bridged.send(&frames);
                let received = bridged.receive(frames.len());
                assert_same(&received, &frames);
            });
        }
    }
}

#[test]
fn small_segments_come_in_several_batches() {
    as_root(|| {
        let mut bridged = Bridged::new(Offload::Auto, Offload::Auto);
        let frames = stream(1, 1000, 300);
        bridged.send(&frames);
        let received = bridged.receive(frames.len());
        assert_same(&received, &frames);
    });
}

/// What is gained: the host's network takes so many frames at once.
#[test]
fn a_batch_of_one_connection_takes_two_writes() {
    for (offload, writes) in [(Offload::Auto, 2), (Offload::Off, FRAMES_MAX)] {
        as_root(move || {
            let mut bridged = Bridged::new(offload, Offload::Off);
            let before = bridged.writes();
            bridged.send(&stream(1, FRAMES_MAX, 1448));
            bridged.receive(FRAMES_MAX);
            let counted = bridged.writes() - before;
            // perf/check.py reads this.
            println!("offload {offload:?}: {counted} writes");
            assert_eq!(counted, writes);
        });
    }
}

/// Cutting makes checksums: one of bytes that are damaged must not become right.
#[test]
fn a_damaged_segment_arrives_damaged() {
    as_root(|| {
        let mut bridged = Bridged::new(Offload::Auto, Offload::Off);
        let mut frames = stream(1, 40, 1448);
        for (index, at) in [(0, 700), (7, 53), (20, 1500)] {
            frames[index][at] ^= 1;
        }
        bridged.send(&frames);
        assert_same(&bridged.receive(40), &frames);
    });
}

#[test]
fn a_datagram_of_the_hosts_has_its_checksum() {
    for offload in OFFLOADS {
        as_root(move || {
            let (mut source, _sink, _) = at_the_host(offload);
            let socket = UdpSocket::bind("192.168.64.1:0").unwrap();
            for len in [0, 1, 18, 500, 1472] {
                socket.send_to(&vec![7; len], "192.168.64.2:9").unwrap();
                let frame = &receive(&mut source, 1)[0];
                let (ip, rest) = Ipv4Header::from_slice(&frame[14..]).unwrap();
                let (udp, data) = UdpHeader::from_slice(rest).unwrap();
                assert_eq!(data, vec![7; len]);
                assert_ne!(udp.checksum, 0);
                assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, data).unwrap());
            }
        });
    }
}

/// The host's own TCP, which leaves segments large and without checksums.
#[test]
fn what_the_host_sends_over_tcp_arrives_in_frames() {
    as_root(|| {
        let (mut source, mut sink, host) = at_the_host(Offload::Auto);
        let listener = TcpListener::bind("192.168.64.1:80").unwrap();
        let mut send = |sequence: u32, acknowledges: Option<u32>| {
            let mut tcp = TcpHeader::new(40_000, 80, sequence, 65_535);
            (tcp.syn, tcp.ack) = (acknowledges.is_none(), acknowledges.is_some());
            tcp.acknowledgment_number = acknowledges.unwrap_or(0);
            let frame = frame([HERE, host], [192, 168, 64, 1], 0, tcp, &[]);
            assert!(matches!(sink.send(&mut filled(&[frame])), Sent::All));
        };
        send(1, None);
        let answer = &receive(&mut source, 1)[0];
        let (tcp, _) = TcpHeader::from_slice(&answer[34..]).unwrap();
        assert!(tcp.syn && tcp.ack);
        let first = tcp.sequence_number.wrapping_add(1);
        send(2, Some(first));
        let (mut stream, _) = listener.accept().unwrap();
        let sent: Vec<u8> = (0..200_000)
            .map(|at| u8::try_from(at / 9 % 251).unwrap())
            .collect();
        let all = sent.clone();
        let sender = thread::spawn(move || stream.write_all(&all));
        let mut received: Vec<u8> = Vec::new();
        while received.len() < sent.len() {
            for frame in receive(&mut source, 1) {
                assert!(frame.len() <= 1514, "{}", frame.len());
                let (ip, rest) = Ipv4Header::from_slice(&frame[14..]).unwrap();
                assert_eq!(usize::from(ip.total_len), frame.len() - 14);
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                let (tcp, data) = TcpHeader::from_slice(rest).unwrap();
                assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, data).unwrap());
                let at = tcp.sequence_number.wrapping_sub(first) as usize;
                // Others come again.
                if at == received.len() {
                    received.extend(data);
                    let next = first.wrapping_add(u32::try_from(received.len()).unwrap());
                    send(2, Some(next));
                }
            }
        }
        assert_eq!(received, sent);
        sender.join().unwrap().unwrap();
    });
}

/// A path behind it that takes less: the kernel says so once, as for a single frame.
#[test]
fn the_kernel_judges_the_parts_and_not_the_whole_by_the_mtu_of_a_path() {
    as_root(|| {
        let (mut source, mut sink, host) = at_the_host(Offload::Auto);
        ip("link add narrow type veth peer name far");
        ip("link set far mtu 1400 up");
        ip("link set narrow mtu 1400 up");
        ip("addr add 10.9.0.1/24 dev narrow");
        ip("neigh add 10.9.0.2 lladdr 52:54:00:00:00:09 dev narrow");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut send = |len| {
            let frames = stream_to(host, [10, 9, 0, 2], 1, 20, len);
            assert!(matches!(sink.send(&mut filled(&frames)), Sent::All));
        };
        let forwarded = || -> usize {
            let path = "/sys/class/net/narrow/statistics/tx_bytes";
            fs::read_to_string(path).unwrap().trim().parse().unwrap()
        };
        let before = forwarded();
        send(1448);
        let error = &receive(&mut source, 1)[0];
        // Destination unreachable, fragmentation needed, and the MTU.
        assert_eq!(error[34..36], [3, 4]);
        assert_eq!(error[40..42], 1400_u16.to_be_bytes());
        assert!(forwarded() - before < 1300);
        send(1300);
        let patience = Instant::now() + Duration::from_secs(5);
        while forwarded() - before < 20 * 1300 {
            assert!(Instant::now() < patience, "{}", forwarded());
            thread::sleep(Duration::from_millis(5));
        }
    });
}

/// The kernel refuses what it took before: all goes on frame by frame, and nothing is lost.
#[test]
fn a_large_segment_that_is_refused_goes_frame_by_frame_and_so_do_all_that_come() {
    as_root(|| {
        let mut bridged = Bridged::new(Offload::Auto, Offload::Off);
        assert!(bridged.sink.takes_large());
        refuse_writev();
        let frames = stream(1, FRAMES_MAX, 1448);
        bridged.send(&frames);
        assert!(!bridged.sink.takes_large());
        assert_same(&bridged.receive(FRAMES_MAX), &frames);
        let before = bridged.writes();
        bridged.send(&frames);
        bridged.receive(FRAMES_MAX);
        assert_eq!(bridged.writes() - before, FRAMES_MAX);
    });
}

/// From now on writev(2) of this thread fails with EINVAL, as a TAP's does with what it refuses.
#[allow(unsafe_code)]
fn refuse_writev() {
    let number = u32::try_from(libc::SYS_writev).unwrap();
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32;
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, refusal, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is four instructions that are there until the call returns; it holds for
    // this thread alone.
    let refuses = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(refuses, 0);
}

/// What the last user of a persistent TAP has set: QEMU's headers have 12 bytes.
#[test]
fn a_persistent_tap_is_left_as_it_was_found() {
    for offload in OFFLOADS {
        as_root(move || {
            ip("tuntap add dev off0 mode tap vnet_hdr");
            let before = settings(Some((12, 7)));
            assert_eq!(before, (12, true, true));
            let (mut source, mut sink, _) = at_the_host(offload);
            let is_on = offload == Offload::Auto;
            assert_eq!((features(), sink.takes_large()), ((is_on, is_on), is_on));
            let socket = UdpSocket::bind("192.168.64.1:9").unwrap();
            socket.send_to(&[7; 100], "192.168.64.2:9").unwrap();
            let frame = receive(&mut source, 1).remove(0);
            assert_eq!(frame.len(), 142);
            let _ = sink.send(&mut filled(&[frame]));
            drop((source, sink));
            assert_eq!(settings(None), before);
        });
    }
}

/// A descriptor of a TAP that another program has set up for longer headers and offloads.
#[test]
fn an_inherited_tap_is_read_with_the_headers_that_this_program_knows() {
    for offload in OFFLOADS {
        as_root(move || {
            show_devices();
            let (opened, _) = open_as_other(Some((12, 7)));
            ip("link set off0 up");
            ip("addr add 192.168.64.1/24 dev off0");
            ip("neigh add 192.168.64.2 lladdr 52:54:00:00:00:01 dev off0");
            let tap = Tap::inherit(opened.into(), offload).unwrap();
            assert!(tap.refused().is_none(), "{:?}", tap.refused());
            let (mut source, _sink) = tap.split();
            let socket = UdpSocket::bind("192.168.64.1:9").unwrap();
            socket.send_to(&[7; 100], "192.168.64.2:9").unwrap();
            let frame = &receive(&mut source, 1)[0];
            assert_eq!((frame.len(), &frame[..6]), (142, &HERE[..]));
        });
    }
}

/// What [`open_as_other`] finds.
fn settings(change: Option<(i32, usize)>) -> (i32, bool, bool) {
    open_as_other(change).1
}

/// Opens the TAP as another program, which may change the settings, and reads them: the length of
/// the header, and whether checksums and segmentation are left to whoever reads the TAP.
#[allow(unsafe_code)]
fn open_as_other(change: Option<(i32, usize)>) -> (File, (i32, bool, bool)) {
    let tap = File::options().read(true).write(true).open("/dev/net/tun");
    let tap = tap.unwrap();
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = request();
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
    let ioctl = |number: u64, argument: *mut libc::c_void| {
        // SAFETY: each request below is called with what it reads or fills.
        let result = unsafe { libc::ioctl(tap.as_raw_fd(), number, argument) };
        assert_eq!(result, 0, "{number:x}: {}", io::Error::last_os_error());
    };
    // TUNSETIFF.
    ioctl(0x4004_54ca, (&raw mut request).cast());
    if let Some((mut header_len, offloads)) = change {
        // TUNSETVNETHDRSZ; TUNSETOFFLOAD, which takes a number.
        ioctl(0x4004_54d8, (&raw mut header_len).cast());
        ioctl(0x4004_54d0, std::ptr::without_provenance_mut(offloads));
    }
    let mut len = 0_i32;
    // TUNGETVNETHDRSZ.
    ioctl(0x8004_54d7, (&raw mut len).cast());
    let (checksums, segments) = features();
    (tap, (len, checksums, segments))
}

/// Whether checksums and segmentation are left to whoever reads the TAP.
#[allow(unsafe_code)]
fn features() -> (bool, bool) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let get = |command: u32| {
        let mut value = [command, 0];
        let mut request = request();
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: SIOCETHTOOL, with a command that fills the second number.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
        assert_eq!(result, 0);
        value[1] != 0
    };
    // ETHTOOL_GTXCSUM, ETHTOOL_GTSO.
    (get(0x16), get(0x1e))
}

#[allow(unsafe_code)]
fn request() -> libc::ifreq {
    // SAFETY: ifreq is a plain structure of bytes and integers; zero is valid for all.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"off0") {
        *to = from.cast_signed();
    }
    request
}
