//! What a VM may call itself, from "Host names" of docs/filtering.md.

use super::Facts;

/// An option: its code, and its data.
type Coded = (u8, Vec<u8>);

impl Facts {
    /// The options as they go on, and the name that the VM claims with them.
    pub(super) fn with_fit_names(&self, options: &[Coded]) -> (Vec<Coded>, Option<String>) {
        let only = |code: u8| {
            let mut found = options.iter().filter(|(other, _)| *other == code);
            let first = found.next();
            first
                .filter(|_| found.next().is_none())
                .map(|(_, data)| data)
        };
        let qualified = only(81).and_then(|data| read_qualified(data));
        let qualified = qualified.filter(|name| name.is_empty() || self.is_usual(name));
        let plain = only(12).and_then(|data| read_label(data));
        let plain = plain.filter(|name| self.is_usual(name));
        // Of two different names only the qualified one may pass.
        let plain = match (&plain, &qualified) {
            (Some(plain), Some(qualified)) if !qualified.is_empty() && plain != qualified => None,
            _ => plain,
        };
        let is_free = |name: &String| !self.taken_names.contains(name);
        let qualified = qualified.filter(|name| !self.strips_names && is_free(name));
        let plain = plain.filter(|name| !self.strips_names && is_free(name));
        let fit = options.iter().filter(|(code, _)| match code {
            12 => plain.is_some(),
            81 => qualified.is_some(),
            _ => true,
        });
        let fit = fit.map(|(code, data)| {
            let mut data = data.clone();
            if *code == 81 {
                data[0] &= !1;
            }
            (*code, data)
        });
        let fit = fit.collect();
        let claimed = qualified.filter(|name| !name.is_empty()).or(plain);
        (fit, claimed)
    }

    fn is_usual(&self, name: &str) -> bool {
        !["wpad", "isatap", "localhost"].contains(&name) && name != self.host_name
    }
}

/// One label, in lower case.
fn read_label(data: &[u8]) -> Option<String> {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let is_label = (1..=63).contains(&data.len())
        && data.iter().all(is_inner)
        && data[0] != b'-'
        && data[data.len() - 1] != b'-';
    is_label.then(|| String::from_utf8(data.to_ascii_lowercase()).unwrap())
}

/// The name in option 81, which may be empty.
fn read_qualified(data: &[u8]) -> Option<String> {
    let (head, name) = data.split_at_checked(3)?;
    let is_wire = head[0] & 4 != 0;
    match name {
        [] => Some(String::new()),
        [0] | [0, 0] if is_wire => Some(String::new()),
        [len, rest @ ..] if is_wire => {
            let len = usize::from(*len);
            let label = rest.get(..len)?;
            matches!(rest[len..], [] | [0])
                .then(|| read_label(label))
                .flatten()
        }
        name => read_label(name),
    }
}
