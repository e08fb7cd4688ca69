//! What a client can ask: the rules as they are, and others in their place.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Change;
use super::request::{Failure, INVALID_PARAMS, METHOD_NOT_FOUND, Request};
use crate::filter::{Policy, Rules};

/// The rules that hold, in their normal form.
#[derive(Debug, Serialize)]
pub(super) struct PolicyResult {
    allow: Vec<String>,
    block: Vec<String>,
    /// How many there are once they are compiled.
    #[serde(rename = "ruleCount")]
    rule_count: usize,
}

/// What may be set, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyParams {
    allow: Vec<String>,
    block: Vec<String>,
}

/// What a request does to the rules.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: PolicyResult,
    /// Whether other rules hold now.
    pub(super) changed: bool,
}

impl Answer {
    /// What there is to tell about it.
    pub(super) fn change(&self) -> Option<Change> {
        self.changed.then_some(Change {
            allow: self.result.allow.len(),
            block: self.result.block.len(),
            isolation: self.result.allow.iter().any(|rule| rule == "0.0.0.0/0"),
        })
    }
}

/// Does what a request asks.
///
/// # Errors
/// Why nothing was done.
pub(super) fn call(request: &Request<'_>, rules: &Rules) -> Result<Answer, Failure> {
    let changed = match request.method.as_str() {
        "softnet.policy.get" => {
            no_params(request.params)?;
            false
        }
        "softnet.policy.set" => rules.set_policy(policy(request.params)?),
        _ => return Err(Failure::new(METHOD_NOT_FOUND, "method not found")),
    };
    let (policy, rule_count) = rules.policy();
    let [allow, block] = policy.normal_form();
    Ok(Answer {
        result: PolicyResult {
            allow,
            block,
            rule_count,
        },
        changed,
    })
}

fn no_params(params: Option<&RawValue>) -> Result<(), Failure> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct None {}
    let json = params.map_or("null", RawValue::get);
    match serde_json::from_str::<Option<None>>(json) {
        Ok(_) if !json.starts_with('[') => Ok(()),
        _ => Err(Failure::new(INVALID_PARAMS, "there are no parameters")),
    }
}

fn policy(params: Option<&RawValue>) -> Result<Policy, Failure> {
    let invalid = |message| Failure::new(INVALID_PARAMS, message);
    let json = params.map_or("null", RawValue::get);
    // Of an array serde would make the same.
    let params: Option<PolicyParams> = (!json.starts_with('['))
        .then(|| serde_json::from_str(json).ok())
        .flatten();
    let PolicyParams { allow, block } = params.ok_or_else(|| {
        invalid("the parameters are two lists of rules, allow and block, and nothing else".into())
    })?;
    Policy::read(&allow, &block)
        .map(|(policy, _)| policy)
        .map_err(|error| invalid(format!("invalid rule {error}")))
}
