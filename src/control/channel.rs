//! One client's connection: reads its requests, and answers them one after another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};
use thiserror::Error;

use super::frames::{Cut, FRAME_MAX, Frames};
use super::methods;
use super::request::{Failure, Id, PARSE_ERROR, Request, response};
use super::{Change, Rights, Vm};

/// How much is read in one turn, in bytes. Each answer counts like this many, so that a turn
/// ends after a few milliseconds, whatever the requests are.
const TURN: usize = FRAME_MAX;
const ANSWER_COST: usize = 4096;

/// A connected client.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    rights: Rights,
    frames: Frames,
    /// What of the last response the client has not taken yet. Until it has, nothing is read.
    unsent: Vec<u8>,
    sent: usize,
    answered: u64,
    /// Whether the client will send nothing more.
    is_at_end: bool,
    /// Whether the last turn ended before all that had come was answered.
    has_more: bool,
}

/// What is to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The next request.
    Reads,
    /// Nothing: requests are here already, and others had to have their turn first.
    More,
    /// Room for the rest of a response.
    Writes,
    /// Nothing: the client is gone, and both directions are shut.
    Ended,
}

impl Channel {
    /// Takes one end of a unix stream socketpair, or of a connection, whose other end has these
    /// rights.
    ///
    /// # Errors
    /// What the descriptor is instead.
    pub fn new(socket: OwnedFd, rights: Rights) -> Result<Self, NotAControlSocket> {
        check(&socket)?;
        let stream = UnixStream::from(socket);
        let number = stream.as_raw_fd();
        stream
            .set_nonblocking(true)
            .map_err(|error| NotAControlSocket::Unknown(number, error))?;
        Ok(Self {
            stream,
            rights,
            frames: Frames::default(),
            unsent: Vec::new(),
            sent: 0,
            answered: 0,
            is_at_end: false,
            has_more: false,
        })
    }

    /// What to wait for before the next [`serve`](Self::serve).
    #[must_use]
    pub fn state(&self) -> State {
        if !self.unsent.is_empty() {
            State::Writes
        } else if self.has_more {
            State::More
        } else if self.is_at_end {
            State::Ended
        } else {
            State::Reads
        }
    }

    /// How many requests have been answered.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Reads what is there, as much as one turn takes, and answers the requests in it as far as the client takes
    /// the answers. Never blocks. Calls `tell` for each change of the rules.
    ///
    /// # Errors
    /// Those after which the channel is of no use. That the client is gone is none.
    pub fn serve(&mut self, vm: &Vm, mut tell: impl FnMut(Change)) -> io::Result<State> {
        let mut budget = TURN;
        let served = loop {
            match self.step(vm, &mut budget, &mut tell) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match served {
            Err(error) if is_hang_up(&error) => {
                self.unsent.clear();
                self.is_at_end = true;
            }
            other => other?,
        }
        self.has_more = budget == 0 && self.unsent.is_empty();
        if self.state() == State::Ended {
            self.end();
        }
        Ok(self.state())
    }

    /// Ends the channel for good, and tells the client. Others may hold the socket too, so that
    /// closing it alone would not.
    pub fn end(&mut self) {
        self.unsent.clear();
        self.has_more = false;
        self.is_at_end = true;
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Does one thing; whether there may be another to do.
    fn step(
        &mut self,
        vm: &Vm,
        budget: &mut usize,
        tell: &mut impl FnMut(Change),
    ) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            return self.flush();
        }
        if *budget == 0 {
            return Ok(false);
        }
        if let Some(cut) = self.frames.next() {
            self.answer(&cut, vm, tell);
            *budget = budget.saturating_sub(ANSWER_COST);
            return Ok(true);
        }
        if self.is_at_end {
            return Ok(false);
        }
        let mut piece = [0; 16 * 1024];
        let room = piece.len().min(self.frames.room()).min(*budget);
        match self.stream.read(&mut piece[..room]) {
            Ok(0) => self.is_at_end = true,
            Ok(read) => {
                *budget -= read;
                self.frames.push(&piece[..read]);
            }
            Err(error) => return pause(error),
        }
        Ok(true)
    }

    fn answer(&mut self, cut: &Cut, vm: &Vm, tell: &mut impl FnMut(Change)) {
        let asked = match cut {
            Cut::TooLong => {
                let message = "request exceeds the maximum frame size";
                Err((Id::Null, Failure::new(PARSE_ERROR, message)))
            }
            Cut::Frame(frame) => Request::parse(frame),
        };
        self.unsent = match asked {
            Err((id, failure)) => response::<()>(&id, Err(&failure)),
            Ok(request) => {
                let result = methods::call(&request, vm, self.rights, tell);
                response(&request.id, result.as_ref())
            }
        };
        self.sent = 0;
        self.answered += 1;
    }

    /// Sends the rest of a response; whether all of it is gone.
    fn flush(&mut self) -> io::Result<bool> {
        match self.stream.write(&self.unsent[self.sent..]) {
            Ok(written) => self.sent += written,
            Err(error) => return pause(error),
        }
        if self.sent == self.unsent.len() {
            self.unsent = Vec::new();
        }
        Ok(true)
    }
}

/// Why a descriptor cannot be the control channel.
#[derive(Debug, Error)]
pub enum NotAControlSocket {
    /// It is a file, a pipe, a terminal, or a socket of another kind.
    #[error(
        "--control-fd {0} is not a unix stream socket; it has to be one end of a unix stream \
         socketpair"
    )]
    NotUnixStream(i32),
    /// Nobody is at the other end.
    #[error("--control-fd {0} is not connected; it has to be one end of a unix stream socketpair")]
    NotConnected(i32),
    /// The system does not say.
    #[error("cannot examine descriptor {0}")]
    Unknown(i32, #[source] io::Error),
}

fn check(socket: &OwnedFd) -> Result<(), NotAControlSocket> {
    let number = socket.as_raw_fd();
    let unknown = |errno: Errno| NotAControlSocket::Unknown(number, errno.into());
    match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        // nix has no name for some types.
        Ok(_) | Err(Errno::ENOTSOCK | Errno::EINVAL) => {
            return Err(NotAControlSocket::NotUnixStream(number));
        }
        Err(errno) => return Err(unknown(errno)),
    }
    // macOS may tell no family of a socket that has no name.
    match getsockname::<SockaddrStorage>(number)
        .map_err(unknown)?
        .family()
    {
        Some(AddressFamily::Unix) | None => {}
        Some(_) => return Err(NotAControlSocket::NotUnixStream(number)),
    }
    match getpeername::<SockaddrStorage>(number) {
        Err(Errno::ENOTCONN) => Err(NotAControlSocket::NotConnected(number)),
        _ => Ok(()),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Whether to go on after a call that failed: not before the client has done something.
fn pause(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(false),
        ErrorKind::Interrupted => Ok(true),
        _ => Err(error),
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;
    use crate::clock::Tick;
    use crate::direction::Direction;
    use crate::filter::policy::Rule;
    use crate::filter::{self, Config, DropReason, Mode, Names, NoClaims, Policy};
    use crate::wire::Mac;

    fn vm() -> Vm {
        let policy = Policy::default();
        let config = Config {
            vm_mac: Mac([0x52, 0x54, 0, 0, 0, 2]),
            gateway: [192, 168, 64, 1].into(),
            gateway_mac: None,
            subnet: None,
            mode: Mode::Nat,
            isolation: true,
            max_frame: 1514,
            policy: &policy,
            connection_rate: 0,
            names: Names::default(),
        };
        let (outbound, _, _, rules) = filter::pair_claiming(&config, Arc::new(NoClaims));
        Vm {
            rules,
            connections: outbound.connections(),
            denied: outbound.denied(),
        }
    }

    struct Client {
        channel: Channel,
        vm: Vm,
        stream: BufReader<UnixStream>,
        changes: usize,
    }

    impl Client {
        fn new() -> Self {
            Self::with(Rights::Steer)
        }

        fn with(rights: Rights) -> Self {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            Self {
                channel: Channel::new(theirs.into(), rights).unwrap(),
                vm: vm(),
                stream: BufReader::new(ours),
                changes: 0,
            }
        }

        /// Sends, and serves until there is nothing to do.
        fn send(&mut self, bytes: &[u8]) {
            let mut left = bytes;
            while !left.is_empty() {
                match self.stream.get_mut().write(left) {
                    Ok(written) => left = &left[written..],
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                self.serve();
            }
            self.serve();
        }

        fn serve(&mut self) -> State {
            loop {
                let changes = &mut self.changes;
                let state = self.channel.serve(&self.vm, |_| *changes += 1).unwrap();
                if state != State::More {
                    return state;
                }
            }
        }

        fn line(&mut self) -> Option<String> {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => Some(String::new()),
                Ok(_) => Some(line.trim_end().to_owned()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            }
        }

        fn ask(&mut self, request: &str) -> String {
            self.send(format!("{request}\n").as_bytes());
            self.line().unwrap()
        }
    }

    const GET: &str = r#"{"jsonrpc":"2.0","id":1,"method":"softnet.policy.get"}"#;
    const EMPTY: &str =
        r#"{"jsonrpc":"2.0","id":1,"result":{"allow":[],"block":[],"ruleCount":0}}"#;

    fn set(params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"softnet.policy.set","params":{params}}}"#)
    }

    #[test]
    fn a_policy_is_read_and_set() {
        let mut client = Client::new();
        assert_eq!(client.ask(GET), EMPTY);
        let request = set(r#"{"allow":["10.1.2.3/8","10.0.0.0/8"],"block":["0.0.0.0/0"]}"#);
        let expected = r#"{"jsonrpc":"2.0","id":7,"result":{"allow":["10.0.0.0/8"],"block":["0.0.0.0/0"],"ruleCount":2}}"#;
        assert_eq!(client.ask(&request), expected);
        assert_eq!(client.changes, 1);
        // The same once more, in another order of writing, changes nothing.
        let request = set(r#"{"block":["0.0.0.0/0"],"allow":["10.0.0.0/8"]}"#);
        assert_eq!(client.ask(&request), expected);
        assert_eq!(client.changes, 1);
        assert_eq!(client.ask(GET), expected.replace("\"id\":7", "\"id\":1"));
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut client = Client::new();
        let many = format!("[{}]", vec!["\"1.2.3.4\""; 4097].join(","));
        for (params, code) in [
            (r#"{"allow":[]}"#, -32602),
            (r#"{"allow":[],"block":[],"more":1}"#, -32602),
            (r#"{"allow":[],"allow":[],"block":[]}"#, -32602),
            (r#"{"allow":["in\t10.0.0.0/8"],"block":[]}"#, -32602),
            (r#"{"allow":["10.0.0.0/33"],"block":[]}"#, -32602),
            (r#"{"allow":[1],"block":[]}"#, -32602),
            (r#"{"allow":null,"block":[]}"#, -32602),
            (r#"[["10.0.0.0/8"],[]]"#, -32602),
            ("null", -32602),
            (&format!(r#"{{"allow":{many},"block":[]}}"#), -32602),
        ] {
            let answer = client.ask(&set(params));
            let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":{code},"#);
            assert!(answer.starts_with(&expected), "{params:.60}: {answer}");
            assert_eq!(client.ask(GET), EMPTY);
        }
        assert_eq!(client.changes, 0);
        let unknown = GET.replace("get", "clear");
        assert!(client.ask(&unknown).contains("-32601"));
        for params in ["{}", "null"] {
            let get = format!("{},\"params\":{params}}}", GET.trim_end_matches('}'));
            assert_eq!(client.ask(&get), EMPTY, "{get}");
        }
        for params in ["[]", "1", r#"{"a":1}"#] {
            let get = format!("{},\"params\":{params}}}", GET.trim_end_matches('}'));
            assert!(client.ask(&get).contains("-32602"), "{get}");
        }
    }

    fn ask(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"softnet.{method}","params":{params}}}"#)
    }

    #[test]
    fn rules_are_added_and_removed() {
        let mut client = Client::new();
        for (method, params, expected) in [
            (
                "add",
                r#"{"allow":["10.0.0.0/8"]}"#,
                (r#""10.0.0.0/8""#, ""),
            ),
            (
                "add",
                r#"{"allow":["10.1.2.3/8","@host"],"block":["@dns"]}"#,
                (r#""10.0.0.0/8","@host""#, r#""@dns""#),
            ),
            (
                "remove",
                r#"{"allow":["10.9.9.9/8"]}"#,
                (r#""@host""#, r#""@dns""#),
            ),
        ] {
            let answer = client.ask(&ask(&format!("policy.{method}"), params));
            let (allow, block) = expected;
            let lists = format!(r#""allow":[{allow}],"block":[{block}]"#);
            assert!(answer.contains(&lists), "{answer}");
        }
        assert_eq!(client.changes, 3);
        for (method, params, expected) in [
            ("remove", r#"{"allow":["@dns"]}"#, "no such rule: @dns"),
            ("remove", r#"{"deny":["@dns"]}"#, "allow or block"),
            ("add", "null", "allow or block"),
            ("add", r#"{"allow":["@vpn"]}"#, "invalid rule"),
        ] {
            let answer = client.ask(&ask(&format!("policy.{method}"), params));
            assert!(
                answer.contains("-32602") && answer.contains(expected),
                "{answer}"
            );
        }
        assert_eq!(client.changes, 3);
    }

    #[test]
    fn who_may_only_read_changes_nothing() {
        let mut client = Client::with(Rights::Read);
        for (method, params) in [
            ("set", r#"{"allow":[],"block":["0.0.0.0/0"]}"#),
            ("set", "null"),
            ("add", r#"{"allow":["@host"]}"#),
            ("remove", r#"{"allow":["@host"]}"#),
        ] {
            let answer = client.ask(&ask(&format!("policy.{method}"), params));
            assert!(answer.contains("-32003"), "{method}: {answer}");
        }
        assert_eq!(client.ask(GET), EMPTY);
        assert_eq!(client.changes, 0);
    }

    #[test]
    fn connections_and_what_was_denied_are_listed() {
        let mut client = Client::with(Rights::Read);
        let answer = client.ask(&ask("flows.list", "null"));
        assert!(
            answer.contains(r#""result":{"flows":[],"next":null}"#),
            "{answer}"
        );
        for params in ["[]", r#"{"start":-1}"#, r#"{"start":"a"}"#, r#"{"from":1}"#] {
            let answer = client.ask(&ask("flows.list", params));
            assert!(answer.contains("-32602"), "{params}: {answer}");
        }
        let answer = client.ask(&ask("flows.list", r#"{"start":18446744073709551615}"#));
        assert!(answer.contains(r#""next":null"#), "{answer}");
        #[rustfmt::skip]
        let frame = [
            2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0,
            0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 168, 64, 2, 10, 2, 3, 4,
            0xc0, 0, 0, 53, 0, 8, 0, 0,
        ];
        let (way, reason) = (Direction::Outbound, DropReason::DestinationPrivate);
        client.vm.denied.record(way, &frame, reason, Tick::now());
        let answer = client.ask(&ask("denied.list", "{}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let [row] = &answer["result"]["denied"].as_array().unwrap()[..] else {
            panic!("{answer}")
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seen = row["lastSeen"].as_u64().unwrap();
        assert!(clock.as_secs().abs_diff(seen) <= 2, "{row}");
        let expected = serde_json::json!({
            "direction": "out", "reason": "destination-private", "protocol": "udp",
            "address": "10.2.3.4", "port": 53, "count": 1,
            "firstSeen": seen, "lastSeen": seen, "allow": "udp 10.2.3.4/32:53",
        });
        assert_eq!(*row, expected);
    }

    #[test]
    fn requests_in_one_write_are_answered_in_order() {
        let mut client = Client::new();
        let second = GET.replace("\"id\":1", "\"id\":\"two\"");
        client.send(format!("{GET}\n{second}\n{}", &GET[..10]).as_bytes());
        assert_eq!(client.line().unwrap(), EMPTY);
        assert_eq!(
            client.line().unwrap(),
            EMPTY.replace("\"id\":1", "\"id\":\"two\"")
        );
        assert_eq!(client.line(), None);
        client.send(format!("{}\n", &GET[10..]).as_bytes());
        assert_eq!(client.line().unwrap(), EMPTY);
    }

    #[test]
    fn a_long_text_that_is_no_rule_is_told_in_part_and_its_fault_whole() {
        let mut client = Client::new();
        let long = "1".repeat(60_000);
        let texts = [
            long.clone(),
            format!("1.2.3.4:{long}"),
            format!("1.2.3.4 {long}"),
        ];
        for text in texts {
            let reason = text.parse::<Rule>().unwrap_err().reason.to_string();
            let answer = client.ask(&set(&format!(r#"{{"allow":["{text}"],"block":[]}}"#)));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("invalid rule \"1"), "{message}");
            assert!(message.ends_with(&reason), "{message}");
            assert!(message.chars().count() <= 300, "{message}");
        }
    }

    #[test]
    fn a_request_that_is_too_long_is_refused_and_the_next_answered() {
        let mut client = Client::new();
        let long = "x".repeat(FRAME_MAX + 1);
        client.send(format!("{long}\n{GET}\n").as_bytes());
        assert!(client.line().unwrap().contains("-32700"));
        assert_eq!(client.line().unwrap(), EMPTY);
        assert_eq!(client.line(), None);
    }

    #[test]
    fn nothing_is_read_while_an_answer_waits() {
        let mut client = Client::new();
        let mut asked = 0;
        let request = format!("{GET}\n");
        while client
            .stream
            .get_mut()
            .write_all(request.as_bytes())
            .is_ok()
        {
            asked += 1;
            client.serve();
            assert!(asked < 1_000_000, "it takes requests without end");
        }
        assert_eq!(client.serve(), State::Writes);
        assert!(client.channel.unsent.len() <= EMPTY.len() + 1);
        let mut answered = 0;
        while answered < asked {
            if client.line().is_some() {
                answered += 1;
            }
            client.serve();
        }
    }

    #[test]
    fn many_small_requests_leave_others_their_turn() {
        let mut client = Client::new();
        let lines = "\n".repeat(100_000);
        client
            .stream
            .get_mut()
            .write_all(lines.as_bytes())
            .unwrap_or_default();
        let mut tell = |_| ();
        let vm = client.vm.clone();
        assert_eq!(client.channel.serve(&vm, &mut tell).unwrap(), State::More);
        let mut answers = 0;
        while client.line().is_some() {
            answers += 1;
        }
        assert!(answers <= TURN / ANSWER_COST, "{answers}");
    }

    #[test]
    fn what_was_asked_before_the_end_is_answered_and_then_both_ways_are_shut() {
        let mut client = Client::new();
        let held = client.channel.stream.try_clone().unwrap();
        let request = format!("{GET}\n");
        client
            .stream
            .get_mut()
            .write_all(request.as_bytes())
            .unwrap();
        client.stream.get_mut().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.serve(), State::Ended);
        assert_eq!(client.line().unwrap(), EMPTY);
        assert_eq!(
            client.line().unwrap(),
            "",
            "an end, though somebody holds a copy"
        );
        drop(held);
    }

    #[test]
    fn a_client_that_is_gone_is_no_error() {
        let Client {
            mut channel,
            vm,
            stream,
            ..
        } = Client::new();
        let mut writer = stream.get_ref();
        writer
            .write_all(format!("{GET}\n{GET}\n").as_bytes())
            .unwrap();
        drop(stream);
        assert_eq!(channel.serve(&vm, |_| ()).unwrap(), State::Ended);
    }

    #[test]
    fn what_is_no_control_socket_is_said() {
        let refusal = |fd: OwnedFd| Channel::new(fd, Rights::Read).unwrap_err().to_string();
        let stream = "is not a unix stream socket";
        assert!(refusal(File::open("/dev/null").unwrap().into()).contains(stream));
        assert!(refusal(UnixDatagram::pair().unwrap().0.into()).contains(stream));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refusal(tcp.into()).contains(stream));
        let (one, other) = UnixStream::pair().unwrap();
        drop(other);
        Channel::new(one.into(), Rights::Read).unwrap();
    }
}
