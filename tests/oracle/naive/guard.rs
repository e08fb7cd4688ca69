//! What the naive filter remembers of the VM's questions, and what it expects of a rewritten
//! message, from "DHCP requests" and "Inbound" of docs/filtering.md.

use std::net::Ipv4Addr;

use super::dhcp::Message;
use super::{Facts, Faults};

/// A question of the VM that waits for an answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) xid: u32,
    pub(crate) kind: u8,
    /// 67, or 4011.
    pub(crate) port: u16,
    /// The address that a REQUEST asks for.
    pub(crate) wanted: Ipv4Addr,
    is_rapid: bool,
    identifier: Vec<u8>,
    pub(super) until: u64,
}

/// That the VM has asked for a lease.
#[derive(Debug, Clone)]
pub(crate) struct NotedWish {
    xid: u32,
    wish: Wish,
    is_void: bool,
    until: u64,
}

/// A REQUEST, or a DISCOVER with rapid commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    For(Ipv4Addr),
    /// Any, but that one if the server likes.
    Any(Ipv4Addr),
}

impl Wish {
    fn of(message: &Message) -> Option<Self> {
        match message.kind() {
            3 => Some(Self::For(message.wanted())),
            1 if message.option(80).is_some() => Some(Self::Any(message.wanted())),
            _ => None,
        }
    }
}

/// What is saved up, from which each event takes its price.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    saved: u32,
    most: u32,
    /// What a second adds.
    income: u32,
    price: u32,
    counted: u32,
}

impl Allowance {
    /// So many at once, and then one in so many seconds.
    pub(crate) fn one_in(seconds: u32, at_once: u32) -> Self {
        Self {
            saved: at_once * seconds,
            most: at_once * seconds,
            income: 1,
            price: seconds,
            counted: 0,
        }
    }

    /// So many at once, and then so many a second.
    pub(crate) fn per_second(income: u32, at_once: u32) -> Self {
        Self {
            saved: at_once,
            most: at_once,
            income,
            price: 1,
            counted: 0,
        }
    }

    pub(super) fn take(&mut self, now: u32) -> bool {
        let income = (now - self.counted).saturating_mul(self.income);
        self.saved = self.saved.saturating_add(income).min(self.most);
        self.counted = now;
        let has_enough = self.saved >= self.price;
        if has_enough {
            self.saved -= self.price;
        }
        has_enough
    }

    pub(super) fn give_back(&mut self) {
        self.saved = self.most.min(self.saved + self.price);
    }
}

impl Facts {
    /// A request that the rules allow. `end` is where it ends in its frame.
    pub(super) fn guard_request(
        &mut self,
        message: &Message,
        port: u16,
        end: usize,
    ) -> Result<(), Faults> {
        let kind = message.kind();
        let is_open = |asked: &&Asked| {
            asked.port == port && asked.xid == message.xid && u64::from(self.now) < asked.until
        };
        let open = self.asked.iter().find(is_open);
        let mixes = |asked: &Asked| (asked.kind == 8) != (kind == 8);
        let is_question = port == 67 && matches!(kind, 1 | 3 | 8);
        if is_question && (open.is_some_and(mixes) || self.is_xid_taken(message)) {
            return Err(vec!["dhcp-transaction"]);
        }
        if !self.messages.take(self.now) || kind == 4 && !self.declines.take(self.now) {
            return Err(vec!["dhcp-rate"]);
        }
        if let Some(own) = message.option(61) {
            self.check_room(message, own.len(), 7, end)?;
        }
        if let (_, Some(name)) = self.with_fit_names(message.options()) {
            self.claimed_name = Some(name);
        }
        let xid = message.xid;
        if matches!(kind, 4 | 7) {
            self.asked.clear();
            self.question = None;
            self.void_wishes(|_| true);
        } else {
            if let Some(wish) = Wish::of(message).filter(|_| port == 67) {
                self.wish(xid, wish);
            }
            self.asked
                .retain(|asked| (asked.port, asked.xid) != (port, xid));
            if port == 67 {
                self.question = self.question.take().filter(|question| question.xid != xid);
            }
            self.asked.push(Asked {
                xid,
                kind,
                port,
                wanted: message.wanted(),
                is_rapid: message.option(80).is_some(),
                identifier: message.option(61).unwrap_or_default().to_vec(),
                until: u64::from(self.now) + 64,
            });
        }
        Ok(())
    }

    /// Whether this asks for something else than the xid stands for.
    fn is_xid_taken(&self, message: &Message) -> bool {
        let mut noted = self
            .wishes
            .iter()
            .filter(|noted| noted.xid == message.xid && u64::from(self.now) < noted.until);
        noted.any(|noted| {
            let is_other = Wish::of(message).is_some_and(|wish| {
                let follows = matches!((noted.wish, wish), (Wish::Any(_), Wish::For(_)));
                wish != noted.wish && !follows
            });
            noted.is_void || is_other
        })
    }

    /// The VM asks for a lease: what it wished before is void, unless it is the same.
    fn wish(&mut self, xid: u32, wish: Wish) {
        self.void_wishes(|noted| {
            noted.xid != xid && (noted.wish != wish || matches!(wish, Wish::Any(_)))
        });
        let goes_with = |address| wish == Wish::For(address);
        self.question = self
            .question
            .take()
            .filter(|question| goes_with(question.address));
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| !goes_with(lease.address))
        {
            self.lease = None;
        }
        self.wishes.retain(|noted| noted.xid != xid);
        self.wishes.push(NotedWish {
            xid,
            wish,
            is_void: false,
            until: u64::from(self.now) + 64,
        });
    }

    fn void_wishes(&mut self, are_meant: impl Fn(&NotedWish) -> bool) {
        let now = u64::from(self.now);
        for noted in &mut self.wishes {
            if !noted.is_void && now < noted.until && are_meant(noted) {
                (noted.is_void, noted.until) = (true, now + 64);
                let xid = noted.xid;
                self.asked
                    .retain(|asked| asked.port != 67 || asked.xid != xid);
            }
        }
    }

    /// A reply that the rules allow: what it answers.
    pub(super) fn guard_reply(
        &mut self,
        message: &Message,
        port: u16,
        end: usize,
    ) -> Result<Asked, Faults> {
        let is_answer = |asked: &Asked| match (asked.kind, message.kind()) {
            _ if port == 4011 => matches!(message.kind(), 2 | 5),
            (1, 2) | (3, 5 | 6) | (8, 5) => true,
            (1, 5) => asked.is_rapid && message.option(80).is_some(),
            _ => false,
        };
        let found = self.asked.iter().position(|asked| {
            (asked.port, asked.xid) == (port, message.xid)
                && u64::from(self.now) < asked.until
                && is_answer(asked)
        });
        let Some(found) = found else {
            return Err(vec!["dhcp-transaction"]);
        };
        let asked = self.asked[found].clone();
        let is_wrong = match asked.kind {
            _ if port == 4011 || message.kind() != 5 => false,
            3 => message.yiaddr != asked.wanted || message.yiaddr.is_unspecified(),
            8 => !message.yiaddr.is_unspecified() || message.option(51).is_some(),
            _ => false,
        };
        if is_wrong {
            return Err(vec!["dhcp-granted-address"]);
        }
        if let Some(returned) = message.option(61) {
            if returned != self.identifier() {
                return Err(vec!["dhcp-client-identifier"]);
            }
            self.check_room(message, 7, asked.identifier.len(), end)?;
        }
        if message.kind() != 2 {
            self.asked.remove(found);
        }
        Ok(asked)
    }

    /// What the server is to know the VM by.
    pub(super) fn identifier(&self) -> Vec<u8> {
        [&[1], &self.vm[..]].concat()
    }

    fn check_room(
        &self,
        message: &Message,
        old: usize,
        new: usize,
        end: usize,
    ) -> Result<(), Faults> {
        let room = message.room_behind_identifier();
        let longer = new.saturating_sub(old);
        let is_in_another_field = message.is_identifier_hidden();
        if longer > room && (is_in_another_field || end + longer - room > self.max_frame) {
            return Err(vec!["dhcp-oversize"]);
        }
        Ok(())
    }

    /// Whether a frame that passed became the one that it should: `identifier` is that of
    /// the question that it answers.
    pub(crate) fn is_rewritten_well(
        &self,
        before: &[u8],
        after: &[u8],
        asked: Option<&Asked>,
    ) -> bool {
        let (Some(old), Some(new)) = (datagram_of(before), datagram_of(after)) else {
            return false;
        };
        let (Ok(old_message), Ok(new_message)) =
            (Message::read(&old[8..]), Message::read(&new[8..]))
        else {
            return false;
        };
        let expected = match (asked, old_message.option(61)) {
            (_, None) => None,
            (None, Some(_)) => Some(self.identifier()),
            (Some(asked), Some(returned)) if asked.identifier.is_empty() => Some(returned.to_vec()),
            (Some(asked), Some(_)) => Some(asked.identifier.clone()),
        };
        let options = match asked {
            None => self.with_fit_names(old_message.options()).0,
            Some(_) => old_message.options().to_vec(),
        };
        let has_sum = old[6..8] != [0, 0];
        new_message.is_with(&old_message, options, expected.as_deref())
            && usize::from(u16::from_be_bytes([new[4], new[5]])) == new.len()
            && sum(&before[14..ip_end(before)]) == sum(&after[14..ip_end(after)])
            && has_sum == (new[6..8] != [0, 0])
            && (!has_sum || udp_sum(before, old) == udp_sum(after, new))
    }
}

/// Where the header ends.
fn ip_end(frame: &[u8]) -> usize {
    14 + 4 * usize::from(frame[14] & 15)
}

/// The datagram of a frame whose lengths agree.
fn datagram_of(frame: &[u8]) -> Option<&[u8]> {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame
        .get(ip_end(frame)..14 + total)
        .filter(|datagram| datagram.len() > 8)
}

/// With the pseudo header: zero when it is right, and what it is off by when not.
pub(crate) fn udp_sum(frame: &[u8], datagram: &[u8]) -> u64 {
    let len = u16::try_from(datagram.len()).unwrap().to_be_bytes();
    (sum(&frame[26..34]) + 17 + sum(&len) + sum(datagram)) % 0xffff
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)))
        .sum();
    sum % 0xffff
}
