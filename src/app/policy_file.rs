//! The file of `--policy`: rules, and limits, in TOML.
//!
//! Its bytes are the caller's, and the program may be SUID root. So they are read and parsed only
//! by a process that has become the caller: `softnet check` does so itself, and when softnet
//! forwards, a child does. To read them early and parse them once the rights are gone would be too
//! late: the rules decide on the interface's isolation, and opening the interface takes the
//! rights. What the child hands on is as simple as the command line, and is read like it.

use std::fmt::{self, Write};
use std::ops::Range;

use anyhow::{Context, anyhow, bail};
use softnet::filter::policy::{HostBits, Policy, Rule};
use softnet::host::files::NamedFile;
use softnet::host::privileges::{CallersRights, in_callers_child};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a policy file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyFile {
    /// The allow rules as they are written, each with its line.
    allow: Vec<(usize, String)>,
    /// The block rules.
    block: Vec<(usize, String)>,
    /// The value of a key, and its line.
    pub(crate) connection_rate: Option<(usize, u32)>,
    /// Whether the VM is told about what its policy refuses.
    pub(crate) rejects: Option<(usize, bool)>,
}

/// What is wrong with a policy file.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    /// Where, if it is anywhere.
    line: Option<usize>,
    text: String,
}

impl PolicyFile {
    /// Reads a file in a child process, as the caller. Must be called before any other thread
    /// starts.
    ///
    /// # Errors
    /// What is wrong with the file, in one line.
    pub(crate) fn read_as_caller(file: &NamedFile) -> anyhow::Result<Self> {
        let act = |rights: &CallersRights| match Self::read(file, rights) {
            Ok(policy) => policy.to_string().into_bytes(),
            Err(error) => format!("{WRONG}{error:#}").into_bytes(),
        };
        let said = in_callers_child(act, SAID_MAX).with_context(|| file.to_string())?;
        let said = String::from_utf8_lossy(&said);
        if let Some(text) = said.strip_prefix(WRONG) {
            bail!("{text}");
        }
        Self::heard(&said).with_context(|| format!("{file}: cannot be read as the caller"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with the file, in one line.
    pub(crate) fn read(file: &NamedFile, rights: &CallersRights) -> anyhow::Result<Self> {
        let bytes = file
            .read(rights, LEN_MAX)
            .with_context(|| file.to_string())?;
        Self::parse(&bytes).map_err(|Wrong { line, text }| match line {
            Some(line) => anyhow!("{file}:{line}: {text}"),
            None => anyhow!("{file}: {text}"),
        })
    }

    /// Adds the rules of `file`, from which this was read, to others, and their warnings.
    ///
    /// # Errors
    /// If together they are too many.
    pub(crate) fn add_to(
        &self,
        file: &NamedFile,
        policy: &mut Policy,
        warnings: &mut Vec<HostBits>,
    ) -> anyhow::Result<()> {
        let (own, own_warnings) = self.policy()?;
        let both = policy.and(&own);
        *policy = both.with_context(|| format!("{file}, --allow and --block"))?;
        warnings.extend(own_warnings);
        Ok(())
    }

    /// The rules, with the prefixes that deserve a warning.
    ///
    /// # Errors
    /// If there are too many. Each alone is right.
    fn policy(&self) -> anyhow::Result<(Policy, Vec<HostBits>)> {
        let texts = |list: &[(usize, String)]| -> Vec<String> {
            list.iter().map(|(_, text)| text.clone()).collect()
        };
        Ok(Policy::read(&texts(&self.allow), &texts(&self.block))?)
    }

    /// The line of a rule, if it is in the file.
    pub(crate) fn line_of(&self, rule: &Rule, allows: bool) -> Option<usize> {
        let list = if allows { &self.allow } else { &self.block };
        let mut same = list.iter().filter(|(_, text)| text.parse() == Ok(*rule));
        same.next().map(|(line, _)| *line)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let text = str::from_utf8(bytes).map_err(|error| Wrong {
            line: Some(line(bytes, error.valid_up_to())),
            text: "not UTF-8, of which TOML consists".to_owned(),
        })?;
        let table = DeTable::parse(text).map_err(|error| Wrong {
            line: error.span().map(|span| line(bytes, span.start)),
            text: format!("not TOML: {:.200}", one_line(error.message())),
        })?;
        let wrong = |span: Range<usize>, text: String| Wrong {
            line: Some(line(bytes, span.start)),
            text,
        };
        let table = table.into_inner();
        // First, because another version may have other keys.
        check_version(table.get("version"), &wrong)?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut read = Self::default();
        for (key, value) in entries {
            let at = line(bytes, key.span().start);
            let expected =
                |what| wrong(value.span(), format!("{}: expected {what}", key.get_ref()));
            match key.get_ref().as_ref() {
                "version" => (),
                "allow" => read.allow = rules(value, &wrong)?,
                "block" => read.block = rules(value, &wrong)?,
                "connection-rate" => {
                    let rate = number(value);
                    let what = "a number from 0 to 4294967295, as in connection-rate = 1000";
                    read.connection_rate = Some((at, rate.ok_or_else(|| expected(what))?));
                }
                "on-deny" => {
                    let rejects = match value.get_ref().as_str() {
                        Some("drop") => false,
                        Some("reject") => true,
                        _ => return Err(expected("\"drop\" or \"reject\"")),
                    };
                    read.rejects = Some((at, rejects));
                }
                other => {
                    let other = format!("{other:?}");
                    let text = format!("unknown key {other:.200}: the keys are {KEYS}");
                    return Err(wrong(key.span(), text));
                }
            }
        }
        read.policy().map_err(|error| Wrong {
            line: None,
            text: error.to_string(),
        })?;
        Ok(read)
    }

    /// What the child has said, which is what [`Display`](fmt::Display) writes.
    fn heard(said: &str) -> anyhow::Result<Self> {
        let mut heard = Self::default();
        let (begin, rest) = said.split_once('\n').context("nothing was said")?;
        if begin != RIGHT {
            bail!("nothing was said");
        }
        for words in rest.lines() {
            let mut words = words.splitn(3, ' ');
            let mut next = || words.next().context("a line that is too short");
            let (key, line, value) = (next()?, next()?.parse()?, next()?);
            match key {
                "allow" => heard.allow.push((line, value.to_owned())),
                "block" => heard.block.push((line, value.to_owned())),
                "connection-rate" => heard.connection_rate = Some((line, value.parse()?)),
                "on-deny" => heard.rejects = Some((line, value == "reject")),
                _ => bail!("a line that is unknown"),
            }
        }
        Ok(heard)
    }
}

/// For the process that keeps its rights: one line for each rule and key.
impl fmt::Display for PolicyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{RIGHT}")?;
        for (key, list) in [("allow", &self.allow), ("block", &self.block)] {
            // No rule has a line feed in it.
            for (line, text) in list {
                writeln!(f, "{key} {line} {text}")?;
            }
        }
        if let Some((line, rate)) = self.connection_rate {
            writeln!(f, "connection-rate {line} {rate}")?;
        }
        if let Some((line, rejects)) = self.rejects {
            let how = if rejects { "reject" } else { "drop" };
            writeln!(f, "on-deny {line} {how}")?;
        }
        Ok(())
    }
}

fn check_version(
    version: Option<&Spanned<DeValue<'_>>>,
    wrong: &impl Fn(Range<usize>, String) -> Wrong,
) -> Result<(), Wrong> {
    match version {
        Some(version) if number(version) == Some(1) => Ok(()),
        Some(version) => {
            let text = "this softnet does not know that version: expected version = 1";
            Err(wrong(version.span(), text.to_owned()))
        }
        None => Err(Wrong {
            line: None,
            text: "no version: expected a line version = 1".to_owned(),
        }),
    }
}

/// A list of rules, each with its line.
fn rules(
    value: &Spanned<DeValue<'_>>,
    wrong: &impl Fn(Range<usize>, String) -> Wrong,
) -> Result<Vec<(usize, String)>, Wrong> {
    let expected = "expected a list of rules, as in [\"10.0.0.0/8\", \"@host\"]";
    let list = value.get_ref().as_array();
    let list = list.ok_or_else(|| wrong(value.span(), expected.to_owned()))?;
    let rule = |entry: &Spanned<DeValue<'_>>| {
        let text = entry.get_ref().as_str();
        let text = text.ok_or_else(|| wrong(entry.span(), expected.to_owned()))?;
        Rule::parse(text).map_err(|error| wrong(entry.span(), error.to_string()))?;
        let place = wrong(entry.span(), String::new());
        Ok((place.line.unwrap_or_default(), text.to_owned()))
    };
    list.iter().map(rule).collect()
}

fn number(value: &Spanned<DeValue<'_>>) -> Option<u32> {
    let integer = value.get_ref().as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The line that a byte is in, from 1 on.
fn line(bytes: &[u8], at: usize) -> usize {
    let before = bytes.iter().take(at);
    before.filter(|byte| **byte == b'\n').count() + 1
}

fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        let blank = if line.is_empty() { "" } else { " " };
        let _ = write!(line, "{blank}{word}");
    }
    line
}

/// For people.
const KEYS: &str = "version, allow, block, connection-rate and on-deny";
/// How long a file may be.
const LEN_MAX: usize = 1 << 20;
/// A file of that length has less to say: a number and a word for each of the rules.
const SAID_MAX: u64 = 2 << 20;
/// What a child says first.
const RIGHT: &str = "right";
const WRONG: &str = "wrong\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<PolicyFile, String> {
        PolicyFile::parse(text.as_bytes()).map_err(|Wrong { line, text }| match line {
            Some(line) => format!("{line}: {text}"),
            None => text,
        })
    }

    #[test]
    fn each_rule_has_its_line() {
        let text = "# The office.\nversion = 1\nallow = [\n  \"10.0.0.0/8\", # all\n  \"in tcp \
                    @host to 22\",\n]\nblock = [\"@private\", \"0.0.0.0/0:25\"]\nconnection-rate = \
                    50\non-deny = \"reject\"\n";
        let read = parse(text).unwrap();
        let rule = |line, text: &str| (line, text.to_owned());
        let expected = PolicyFile {
            allow: vec![rule(4, "10.0.0.0/8"), rule(5, "in tcp @host to 22")],
            block: vec![rule(7, "@private"), rule(7, "0.0.0.0/0:25")],
            connection_rate: Some((8, 50)),
            rejects: Some((9, true)),
        };
        assert_eq!(read, expected);
        assert_eq!(PolicyFile::heard(&read.to_string()).unwrap(), expected);
        let rule = "10.0.0.0/8".parse().unwrap();
        assert_eq!(read.line_of(&rule, true), Some(4));
        assert_eq!(read.line_of(&rule, false), None);
    }

    #[test]
    fn what_is_wrong_has_one_line_with_its_place() {
        for (text, expected) in [
            ("", "no version: expected a line version = 1"),
            (
                "alow = []\nversion = 2",
                "2: this softnet does not know that version: expected version = 1",
            ),
            (
                "version = \"1\"",
                "1: this softnet does not know that version: expected version = 1",
            ),
            (
                "version = 1\n\nalow = []",
                "3: unknown key \"alow\": the keys are version, allow, block, connection-rate and \
                 on-deny",
            ),
            (
                "version = 1\nallow = [\n\"@host\",\n\"10.0.0.0/33\"]",
                "4: \"10.0.0.0/33\": neither an IPv4 network, as in 10.0.0.0/8, nor an IPv4 address",
            ),
            (
                "version = 1\nblock = \"@host\"",
                "2: expected a list of rules, as in [\"10.0.0.0/8\", \"@host\"]",
            ),
            (
                "version = 1\nblock = [1]",
                "2: expected a list of rules, as in [\"10.0.0.0/8\", \"@host\"]",
            ),
            (
                "version = 1\nconnection-rate = -1",
                "2: connection-rate: expected a number from 0 to 4294967295, as in \
                 connection-rate = 1000",
            ),
            (
                "version = 1\non-deny = true",
                "2: on-deny: expected \"drop\" or \"reject\"",
            ),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
        let twice = parse("version = 1\nallow = []\nallow = []").unwrap_err();
        assert!(twice.starts_with("3: not TOML: "), "{twice}");
        let no_toml = parse("version = 1\nallow: []").unwrap_err();
        assert!(no_toml.starts_with("2: not TOML: "), "{no_toml}");
        let many = format!("version = 1\nallow = [{}]", "\"@host\",".repeat(4097));
        let many = parse(&many).unwrap_err();
        assert_eq!(many, "4097 rules, of which at most 4096 are accepted");
        let no_text = PolicyFile::parse(b"version = 1\n# \xff").unwrap_err();
        assert_eq!(no_text.line, Some(2));
    }

    /// Pieces of a policy file, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let words = [
            "version",
            "allow",
            "block",
            "on-deny",
            " = ",
            "1",
            "[",
            "]",
            "{",
            "}",
            "\n",
            "\"",
            "@host",
            "10.0.0.0/8",
            ",",
            "'",
            "#",
            "\"\"\"",
            ".",
            "\\u0000",
            "0x",
            "-",
            "\r\n",
        ];
        let piece = prop_oneof![
            4 => prop::sample::select(words.to_vec()).prop_map(|it| it.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        let many = prop::collection::vec(piece, 0..40);
        let versions = prop_oneof![Just(&b""[..]), Just(&b"version = 1\n"[..])];
        (versions, many).prop_map(|(first, rest)| [first, &rest.concat()].concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in pieces()) {
            match PolicyFile::parse(&bytes) {
                Ok(read) => {
                    let heard = PolicyFile::heard(&read.to_string()).unwrap();
                    prop_assert_eq!(heard, read);
                }
                Err(wrong) => prop_assert!(!wrong.text.contains('\n')),
            }
        }

        #[test]
        fn nothing_that_a_child_says_makes_it_panic(said in any::<String>()) {
            let _ = PolicyFile::heard(&format!("{RIGHT}\n{said}"));
        }
    }

    #[test]
    fn lists_in_lists_end_somewhere() {
        let deep = format!("version = 1\nallow = {}", "[".repeat(500_000));
        parse(&deep).unwrap_err();
    }
}
