//! Which destinations the VM may reach, and who may reach the VM: the rules as the user wrote them.
//!
//! ```text
//!   rule.rs      one rule, as it is written      built_in.rs   the rules that are built in
//!         \                                       /
//!          mod.rs  the two lists, their normal form
//!             |
//!          compile.rs  for one VM's surroundings, into tables: ports.rs, and ../prefix.rs
//!             |
//!          verdicts.rs  what they say about a packet
//! ```
//!
//! docs/rules.md says which rule decides.

mod built_in;
mod compile;
mod explain;
mod ports;
mod rule;
mod verdicts;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use thiserror::Error;

pub(crate) use compile::{Compiled, Surroundings};
pub use explain::{Explanation, Peer, Place};
pub(crate) use ports::PortPair;
pub use rule::{HostBits, Ports, Protocol, Reason, Rule, RuleError, Scope, Target};
pub(crate) use verdicts::Kind;

/// What the interface connects the VM to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The gateway, and the networks behind it.
    #[default]
    Nat,
    /// The gateway alone; no rule can allow more.
    Host,
}

/// The rules of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<Rule>,
    block: Vec<Rule>,
    /// Whether 0.0.0.0/0 is allowed, and was written exactly like that.
    isolation_off: bool,
}

/// Why a policy is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// One of the rules is invalid.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Allow and block rules are counted together.
    #[error("{0} rules, of which at most {RULES_MAX} are accepted")]
    TooMany(usize),
}

impl Policy {
    /// Creates a policy from its rules.
    ///
    /// # Errors
    /// If there are more than [`RULES_MAX`].
    pub fn new(allow: Vec<Rule>, block: Vec<Rule>) -> Result<Self, PolicyError> {
        let policy = Self {
            isolation_off: allow.contains(&EVERYTHING),
            allow,
            block,
        };
        match policy.allow.len() + policy.block.len() {
            count if count > RULES_MAX => Err(PolicyError::TooMany(count)),
            _ => Ok(policy),
        }
    }

    /// Parses the comma-separated lists of `--allow` and `--block`; an empty list has no rules.
    /// Also returns the prefixes that deserve a warning.
    ///
    /// # Errors
    /// The first rule that cannot be parsed, or more than [`RULES_MAX`] of them.
    pub fn parse(allow: &str, block: &str) -> Result<(Self, Vec<HostBits>), PolicyError> {
        let split = |list: &'_ str| -> Vec<String> {
            let written = list.split(',').map(|text| text.trim().to_owned());
            written.filter(|_| !list.trim().is_empty()).collect()
        };
        Self::read(&split(allow), &split(block))
    }

    /// Parses lists of rules.
    ///
    /// # Errors
    /// The same as for [`parse`](Self::parse).
    pub fn read<S: AsRef<str>>(
        allow: &[S],
        block: &[S],
    ) -> Result<(Self, Vec<HostBits>), PolicyError> {
        let count = allow.len() + block.len();
        if count > RULES_MAX {
            return Err(PolicyError::TooMany(count));
        }
        let mut warnings = Vec::new();
        let mut rules = |list: &[S]| -> Result<Vec<Rule>, RuleError> {
            let written = list.iter().map(AsRef::as_ref);
            written
                .map(|text| {
                    let (rule, warning) = Rule::parse(text)?;
                    warnings.extend(warning);
                    Ok(rule)
                })
                .collect()
        };
        let policy = Self {
            // A rule that only has the same effect, such as 0.0.0.1/0, is taken for a mistake.
            isolation_off: allow.iter().any(|text| text.as_ref() == "0.0.0.0/0"),
            ..Self::new(rules(allow)?, rules(block)?)?
        };
        Ok((policy, warnings))
    }

    /// The rules of both policies, these first.
    ///
    /// # Errors
    /// If they are more than [`RULES_MAX`] together.
    pub fn and(&self, other: &Self) -> Result<Self, PolicyError> {
        let allow = [&self.allow[..], &other.allow].concat();
        let block = [&self.block[..], &other.block].concat();
        Ok(Self {
            isolation_off: self.isolation_off || other.isolation_off,
            ..Self::new(allow, block)?
        })
    }

    /// This policy, and of another one the rules that this one does not have.
    ///
    /// # Errors
    /// If they are more than [`RULES_MAX`] together.
    pub fn plus(&self, other: &Self) -> Result<Self, PolicyError> {
        let new = |list: &[Rule], added: &[Rule]| {
            let present = set(list);
            let new = added.iter().filter(|rule| !present.contains(rule));
            new.copied().collect()
        };
        self.and(&Self {
            allow: new(&self.allow, &other.allow),
            block: new(&self.block, &other.block),
            isolation_off: other.isolation_off,
        })
    }

    /// This policy without the rules of another one.
    ///
    /// # Errors
    /// A rule that this policy does not have in that list.
    pub fn without(&self, other: &Self) -> Result<Self, NoSuchRule> {
        let rest = |list: &[Rule], removed: &[Rule]| {
            let (present, gone) = (set(list), set(removed));
            if let Some(missing) = removed.iter().find(|rule| !present.contains(rule)) {
                return Err(NoSuchRule(*missing));
            }
            let kept = list.iter().filter(|rule| !gone.contains(rule));
            Ok(kept.copied().collect::<Vec<_>>())
        };
        let allow = rest(&self.allow, &other.allow)?;
        Ok(Self {
            isolation_off: self.isolation_off && allow.contains(&EVERYTHING),
            allow,
            block: rest(&self.block, &other.block)?,
        })
    }

    /// The allow rules, in the order in which they were written.
    #[must_use]
    pub fn allowed(&self) -> &[Rule] {
        &self.allow
    }

    /// The block rules, in the order in which they were written.
    #[must_use]
    pub fn blocked(&self) -> &[Rule] {
        &self.block
    }

    /// Both lists in their normal form, allow rules first: sorted as text, each rule once.
    #[must_use]
    pub fn normal_form(&self) -> [Vec<String>; 2] {
        [&self.allow, &self.block].map(|list| {
            let mut texts: Vec<String> = list.iter().map(Rule::to_string).collect();
            texts.sort_unstable();
            texts.dedup();
            texts
        })
    }

    /// Whether a rule names a direction. If so, connections are tracked, and a rule without a
    /// direction applies to both.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.all().any(|rule| rule.direction.is_some())
    }

    /// Whether `--allow 0.0.0.0/0`, written exactly like that, asks to reach other VMs too, which
    /// requires that the interface's isolation is off. Blocking the same prefix does not change
    /// that. A prefix that only has the same effect, such as 10.0.0.0/0, does not ask for it.
    #[must_use]
    pub const fn wants_isolation_off(&self) -> bool {
        self.isolation_off
    }

    /// Whether a rule is about the lease's name servers.
    pub(super) fn names_dns(&self) -> bool {
        self.all().any(|rule| rule.target == Target::Dns)
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().chain(&self.block)
    }
}

/// A rule cannot be removed from a list that does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no such rule: {0}")]
pub struct NoSuchRule(pub Rule);

fn set(rules: &[Rule]) -> HashSet<&Rule> {
    rules.iter().collect()
}

const EVERYTHING: Rule = Rule::bare(Target::Net(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));

/// How many rules a policy may have.
pub const RULES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(allow: &str, block: &str) -> Policy {
        Policy::parse(allow, block).unwrap().0
    }

    fn refusal(list: &str) -> String {
        Policy::parse(list, "").unwrap_err().to_string()
    }

    #[test]
    fn lists_are_read_in_the_order_written() {
        let policy = parse("10.0.0.0/8, @host,1.2.3.4/32", "0.0.0.0/0");
        let written: Vec<_> = policy.allowed().iter().map(Rule::to_string).collect();
        assert_eq!(written, ["10.0.0.0/8", "@host", "1.2.3.4/32"]);
        assert_eq!(
            policy.blocked(),
            [Rule::bare(Target::Net(Ipv4Net::default()))]
        );
        assert_eq!((policy.allow.len() + policy.block.len()), 4);
        assert_eq!(parse("", " "), Policy::default());
    }

    #[test]
    fn host_bits_are_cleared_with_a_warning() {
        let (policy, warnings) = Policy::parse("10.1.2.3/8,10.0.0.0/8", "").unwrap();
        assert_eq!(policy, parse("10.0.0.0/8,10.0.0.0/8", ""));
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert_eq!(
            warning.to_string(),
            "10.1.2.3/8 has host bits: taken as 10.0.0.0/8"
        );
    }

    #[test]
    fn host_bits_that_come_to_everything_say_what_that_means() {
        let (policy, warnings) = Policy::parse("0.0.0.1/0", "").unwrap();
        assert_eq!(
            policy.allowed(),
            [Rule::bare(Target::Net(Ipv4Net::default()))]
        );
        assert_eq!(
            warnings[0].to_string(),
            "0.0.0.1/0 has host bits: taken as 0.0.0.0/0, every address; only a literal 0.0.0.0/0 \
             in --allow also ends the isolation from other VMs"
        );
    }

    #[test]
    fn an_address_alone_is_a_prefix_of_32_bits() {
        assert_eq!(
            parse("1.2.3.4", "0.0.0.0"),
            parse("1.2.3.4/32", "0.0.0.0/32")
        );
        let (_, warnings) = Policy::parse("1.2.3.4", "").unwrap();
        assert_eq!(warnings, []);
        assert_eq!("1.2.3.4".parse::<Rule>().unwrap().to_string(), "1.2.3.4/32");
    }

    #[test]
    fn the_first_rule_that_is_none_is_named() {
        assert_eq!(
            refusal("@host,10.0.0.0/33,@vpn"),
            "\"10.0.0.0/33\": neither an IPv4 network, as in 10.0.0.0/8, nor an IPv4 address"
        );
        assert!(refusal("@host,").starts_with("\"\": "));
    }

    #[test]
    fn the_normal_form_has_each_rule_once_in_order() {
        let policy = parse(
            "@host,10.1.2.3/8,1.2.3.4,10.0.0.0/8",
            "0.0.0.0/0:25,0.0.0.0/0",
        );
        let [allow, block] = policy.normal_form();
        assert_eq!(allow, ["1.2.3.4/32", "10.0.0.0/8", "@host"]);
        assert_eq!(block, ["0.0.0.0/0", "0.0.0.0/0:25"]);
    }

    #[test]
    fn at_most_4096_targets_are_accepted() {
        let list = vec!["@host"; 4095].join(",");
        assert_eq!(parse(&list, "@host").all().count(), 4096);
        let error = Policy::parse(&list, "@host,@host").unwrap_err();
        assert_eq!(
            error.to_string(),
            "4097 rules, of which at most 4096 are accepted"
        );
    }

    #[test]
    fn two_policies_count_as_one() {
        let both = parse("@host", "10.0.0.0/8").and(&parse("0.0.0.0/0", "@dns"));
        assert_eq!(both.unwrap(), parse("@host,0.0.0.0/0", "10.0.0.0/8,@dns"));
        let none = Policy::default();
        assert_eq!(
            none.and(&parse("0.0.0.0/0", "")).unwrap(),
            parse("0.0.0.0/0", "")
        );
        // The same rule, but not written in the way that ends isolation.
        assert!(
            !none
                .and(&parse("0.0.0.1/0", ""))
                .unwrap()
                .wants_isolation_off()
        );
        let many = parse(&vec!["@host"; 4096].join(","), "");
        assert_eq!(
            many.and(&parse("", "@dns")),
            Err(PolicyError::TooMany(4097))
        );
    }

    #[test]
    fn rules_that_are_there_are_not_added_again() {
        let policy = parse("@host,10.0.0.0/8", "@dns");
        let more = policy.plus(&parse("@dns,10.1.2.3/8", "@dns,@private"));
        let more = more.unwrap();
        assert_eq!(more, parse("@host,10.0.0.0/8,@dns", "@dns,@private"));
        let full = parse(&vec!["@host"; 4096].join(","), "");
        assert_eq!(full.plus(&parse("@host", "")), Ok(full.clone()));
        assert_eq!(
            full.plus(&parse("", "@host")),
            Err(PolicyError::TooMany(4097))
        );
    }

    #[test]
    fn rules_are_removed_from_the_list_that_has_them() {
        let policy = parse("@host,10.0.0.0/8,@host,0.0.0.0/0", "10.0.0.0/8,@dns");
        let rest = policy.without(&parse("@host,10.1.2.3/8,0.0.0.0/0", "@dns"));
        let rest = rest.unwrap();
        assert_eq!(rest, parse("", "10.0.0.0/8"));
        assert!(!rest.wants_isolation_off());
        let missing = policy.without(&parse("@dns", "")).unwrap_err();
        assert_eq!(missing.to_string(), "there is no such rule: @dns");
    }

    #[test]
    fn allowing_everything_wants_isolation_off() {
        assert!(parse("0.0.0.0/0", "0.0.0.0/0").wants_isolation_off());
        assert!(parse("@host,1.2.3.4/0,0.0.0.0/0", "").wants_isolation_off());
        assert!(!parse("@host,1.2.3.4/0", "").wants_isolation_off());
        assert!(!parse("0.0.0.1/0", "").wants_isolation_off());
        assert!(!parse("0.0.0.0", "").wants_isolation_off());
        assert!(!parse("0.0.0.0/1,128.0.0.0/1", "").wants_isolation_off());
        assert!(!parse("", "0.0.0.0/0").wants_isolation_off());
    }
}
