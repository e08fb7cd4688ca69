//! Prints what a running softnet answers: JSON line by line for programs, or columns for people.
//!
//! The answer may come from anybody who runs as the VM's user, so nothing in it reaches the terminal
//! that a terminal would act upon.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use softnet::control::{DeniedPackets, Flow, PolicyResult};
use softnet::host::console::plain;

/// Rules, in the form in which flags take them.
pub(super) fn rules(rules: &PolicyResult, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return line(rules, out);
    }
    for (word, list) in [("allow", &rules.allow), ("block", &rules.block)] {
        for rule in list {
            writeln!(out, "{word} {}", plain(rule))?;
        }
    }
    if rules.allow.is_empty() && rules.block.is_empty() {
        writeln!(out, "no rules: what is built in decides")?;
    }
    Ok(())
}

/// Connections, the youngest last.
pub(super) fn flows(flows: &[Flow], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return flows.iter().try_for_each(|flow| line(flow, out));
    }
    let mut flows: Vec<_> = flows.iter().collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.age));
    let mut table =
        vec![["opened", "protocol", "vm", "peer", "state", "age", "idle"].map(String::from)];
    table.extend(flows.iter().map(|flow| {
        [
            flow.opened.clone(),
            flow.protocol.clone(),
            flow.vm_port.to_string(),
            format!("{}:{}", flow.peer, flow.peer_port),
            flow.state.clone(),
            time(flow.age.into()),
            time(flow.idle.into()),
        ]
    }));
    columns(&table, out)
}

/// What was denied, and the rules that would allow it, as `softnet policy add` takes them.
pub(super) fn denied(
    rows: &[DeniedPackets],
    missed: u64,
    json: bool,
    has_head: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        return rows.iter().try_for_each(|row| line(row, out));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let head = [
        "last",
        "way",
        "packets of",
        "denied as",
        "count",
        "allowed by",
    ];
    let mut table = Vec::new();
    if has_head {
        table.push(head.map(String::from));
    }
    table.extend(rows.iter().map(|row| {
        let port = row.port.map_or_else(String::new, |port| format!(":{port}"));
        let rule = row.allow.as_ref();
        [
            format!("{} ago", time(now.saturating_sub(row.last_seen))),
            row.direction.clone(),
            format!("{} {}{port}", row.protocol, row.address),
            row.reason.clone(),
            row.count.to_string(),
            rule.map_or_else(
                || "no rule".to_owned(),
                |rule| format!("--allow \"{rule}\""),
            ),
        ]
    }));
    columns(&table, out)?;
    if missed > 0 {
        writeln!(out, "and {missed} packets more, while others looked")?;
    }
    Ok(())
}

fn line(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Left-aligned, each column as wide as its widest text.
fn columns<const N: usize>(table: &[[String; N]], out: &mut impl Write) -> io::Result<()> {
    let cells: Vec<_> = table
        .iter()
        .map(|row| row.each_ref().map(|cell| plain(cell)))
        .collect();
    let mut widths = [0; N];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &cells {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// As a person would say it: `7s`, `12m`, `3h`, `2d`.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_denied_is_a_table_and_a_rule_to_paste() {
        let row = |protocol: &str, port, allow: Option<&str>| DeniedPackets {
            direction: "out".to_owned(),
            reason: "destination-blocked".to_owned(),
            protocol: protocol.to_owned(),
            address: "1.2.3.4".to_owned(),
            port,
            count: 3,
            first_seen: 0,
            last_seen: u64::MAX,
            allow: allow.map(str::to_owned),
        };
        let rows = [
            row("tcp", Some(443), Some("tcp 1.2.3.4/32:443")),
            row("47", None, None),
        ];
        let text = printed(|out| denied(&rows, 2, false, true, out));
        let expected = "\
last    way  packets of       denied as            count  allowed by
0s ago  out  tcp 1.2.3.4:443  destination-blocked  3      --allow \"tcp 1.2.3.4/32:443\"
0s ago  out  47 1.2.3.4       destination-blocked  3      no rule
and 2 packets more, while others looked
";
        assert_eq!(text, expected);
        let json = printed(|out| denied(&rows, 2, true, true, out));
        assert_eq!(json.lines().count(), 2);
    }

    #[test]
    fn nothing_that_a_terminal_acts_upon_is_printed() {
        let shown = |json| {
            let evil = PolicyResult {
                allow: vec!["\u{1b}[2J\n".to_owned()],
                block: vec![],
                rule_count: 0,
            };
            printed(|out| rules(&evil, json, out))
        };
        assert_eq!(shown(false), "allow \\u{1b}[2J\\n\n");
        assert!(!shown(true).contains('\u{1b}'));
    }

    #[test]
    fn times_are_short() {
        let times = [0, 119, 120, 7199, 7200, 172_799, 172_800];
        let texts = times.map(time);
        assert_eq!(texts, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
