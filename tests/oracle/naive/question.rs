//! The request that softnet sends of its own, from "softnet's own request" in docs/filtering.md.

use std::net::Ipv4Addr;

use super::dhcp::Message;
use super::{Facts, Faults};

/// A question that softnet asked for the VM.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) address: Ipv4Addr,
    pub(crate) xid: u32,
    pub(super) until: u64,
}

impl Facts {
    /// Whether a frame of the VM that names this address becomes a question.
    pub(super) fn is_question_due(&self, address: Ipv4Addr) -> bool {
        self.valid_lease().is_none()
            && self.is_grantable(address, self.network)
            && (self.network.is_some() || !address.is_link_local())
            && u64::from(self.now) >= self.may_ask_at
            && self.max_frame >= 342
    }

    /// Notes the question that the filter made of a frame, if it is as it should be.
    pub(crate) fn note_question(&mut self, frame: &[u8], address: Ipv4Addr) -> bool {
        let Some(xid) = self.xid_of_question(frame, address) else {
            return false;
        };
        self.question = Some(Question {
            address,
            xid,
            until: u64::from(self.now) + 64,
        });
        self.may_ask_at = u64::from(self.now) + 4;
        true
    }

    fn xid_of_question(&self, frame: &[u8], address: Ipv4Addr) -> Option<u32> {
        let ip = frame.get(14..34)?;
        let words = ip
            .chunks(2)
            .map(|word| u64::from(word[0]) << 8 | u64::from(word[1]));
        let is_framed = frame.len() == 342
            && frame[..6] == [0xff; 6]
            && frame[6..12] == self.vm
            && frame[12..14] == [8, 0]
            && ip[0] == 0x45
            && ip[2..4] == [1, 72]
            && ip[6..8].iter().all(|byte| byte & 0x3f == 0)
            && ip[8] > 0
            && ip[9] == 17
            && words.sum::<u64>() % 0xffff == 0
            && ip[12..] == [0, 0, 0, 0, 255, 255, 255, 255]
            && frame[34..42] == [0, 68, 0, 67, 1, 52, 0, 0];
        let data = &frame[42..];
        let message = Message::read(data).ok()?;
        let is_asked_well = data[..4] == [1, 1, 6, 0]
            && data[8..12] == [0, 0, 0x80, 0]
            && data[12..28] == [0; 16]
            && data[28..34] == self.vm
            && data[34..236].iter().all(|byte| *byte == 0)
            && message.kind() == 3
            && message.option(50) == Some(&address.octets()[..])
            && message.option(61) == Some(&self.identifier()[..])
            && message.option(55) == Some(&[1, 3, 6, 51][..])
            && message.option_count() == 4;
        let is_the_vms = |xid| {
            let open = |asked: &super::Asked| asked.xid == xid && u64::from(self.now) < asked.until;
            self.asked.iter().any(open)
        };
        (is_framed && is_asked_well && !is_the_vms(message.xid)).then_some(message.xid)
    }

    /// An answer of the gateway to the question, if this is one.
    pub(super) fn answer_question(
        &mut self,
        from: [u8; 6],
        message: &Message,
    ) -> Option<Result<(), Faults>> {
        let question = self.question.clone()?;
        let kind = message.kind();
        if question.xid != message.xid
            || u64::from(self.now) >= question.until
            || !matches!(kind, 5 | 6)
        {
            return None;
        }
        let mut faults = Vec::new();
        if kind == 5 && message.yiaddr != question.address {
            faults.push("dhcp-granted-address");
        }
        if message
            .option(61)
            .is_some_and(|returned| returned != self.identifier())
        {
            faults.push("dhcp-client-identifier");
        }
        if !faults.is_empty() {
            return Some(Err(faults));
        }
        self.question = None;
        if let (5, Some(time)) = (kind, message.option(51))
            && self.valid_lease().is_none()
        {
            if self.taken.contains(&question.address) {
                return Some(Err(vec!["dhcp-address-taken"]));
            }
            self.bind(from, message, time.try_into().unwrap());
        }
        Some(Err(vec!["dhcp-own-answer"]))
    }
}
