//! What a client can ask: the rules as they are, others in their place, and what they do.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::listings::{DeniedResult, FlowsResult};
use super::request::{Failure, INVALID_PARAMS, METHOD_NOT_FOUND, READ_ONLY, Request};
use super::{Change, Rights, Vm};
use crate::clock::Tick;
use crate::filter::Policy;

/// The rules that hold, in their normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyResult {
    /// The rules that allow.
    pub allow: Vec<String>,
    /// The rules that block.
    pub block: Vec<String>,
    /// How many there are once they are compiled.
    #[serde(rename = "ruleCount")]
    pub rule_count: usize,
}

/// The parameters of `set`: these two, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    allow: Vec<String>,
    block: Vec<String>,
}

/// The parameters of `add` and `remove`: one of these, or both.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SomeLists {
    allow: Vec<String>,
    block: Vec<String>,
}

/// The parameters of a list that has pages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Page {
    start: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Does what a request asks. Calls `tell` if the rules have changed.
///
/// # Errors
/// Why nothing was done.
pub(super) fn call(
    request: &Request<'_>,
    vm: &Vm,
    rights: Rights,
    tell: &mut impl FnMut(Change),
) -> Result<Box<RawValue>, Failure> {
    let params = request.params;
    match request.method.as_str() {
        "softnet.policy.get" => {
            no_params(params)?;
            json(&rules_of(vm))
        }
        "softnet.policy.set" => {
            may_change(rights)?;
            let Lists { allow, block } = required(params).ok_or_else(|| {
                invalid("the parameters are two lists of rules, allow and block, and nothing else")
            })?;
            let policy = policy(&allow, &block)?;
            change(vm, tell, |_| Ok(policy))
        }
        "softnet.policy.add" => {
            may_change(rights)?;
            let added = some_rules(params)?;
            change(vm, tell, |policy| policy.plus(&added).map_err(invalid))
        }
        "softnet.policy.remove" => {
            may_change(rights)?;
            let removed = some_rules(params)?;
            change(vm, tell, |policy| policy.without(&removed).map_err(invalid))
        }
        "softnet.flows.list" => {
            let page: Option<Page> = optional(params);
            let page = page.ok_or_else(|| invalid("the only parameter is start, a number"))?;
            json(&FlowsResult::of(&vm.connections, page.start, Tick::now()))
        }
        "softnet.denied.list" => {
            no_params(params)?;
            json(&DeniedResult::of(vm, Tick::now()))
        }
        _ => Err(Failure::new(METHOD_NOT_FOUND, "method not found")),
    }
}

fn rules_of(vm: &Vm) -> PolicyResult {
    let (policy, rule_count) = vm.rules.policy();
    let [allow, block] = policy.normal_form();
    PolicyResult {
        allow,
        block,
        rule_count,
    }
}

/// Has other rules hold, and answers with them.
fn change(
    vm: &Vm,
    tell: &mut impl FnMut(Change),
    change: impl FnOnce(&Policy) -> Result<Policy, Failure>,
) -> Result<Box<RawValue>, Failure> {
    let has_changed = vm.rules.change_policy(change)?;
    let result = rules_of(vm);
    if has_changed {
        tell(Change {
            allow: result.allow.len(),
            block: result.block.len(),
            isolation: result.allow.iter().any(|rule| rule == "0.0.0.0/0"),
        });
    }
    json(&result)
}

fn may_change(rights: Rights) -> Result<(), Failure> {
    match rights {
        Rights::Steer => Ok(()),
        Rights::Read => Err(Failure::new(
            READ_ONLY,
            "this socket only reads: start softnet with --steer to change rules over it",
        )),
    }
}

fn some_rules(params: Option<&RawValue>) -> Result<Policy, Failure> {
    let lists: Option<SomeLists> = required(params);
    let SomeLists { allow, block } = lists.ok_or_else(|| {
        invalid("the parameters are lists of rules, allow or block or both, and nothing else")
    })?;
    policy(&allow, &block)
}

fn policy(allow: &[String], block: &[String]) -> Result<Policy, Failure> {
    let policy = Policy::read(allow, block);
    let policy = policy.map_err(|error| invalid(format!("invalid rule {error}")));
    policy.map(|(policy, _)| policy)
}

fn no_params(params: Option<&RawValue>) -> Result<(), Failure> {
    let none: Option<Nothing> = optional(params);
    none.map(|_| ())
        .ok_or_else(|| invalid("there are no parameters"))
}

/// Parameters that may be missing or null.
fn optional<T: Default + DeserializeOwned>(params: Option<&RawValue>) -> Option<T> {
    match params.map(RawValue::get) {
        None | Some("null") => Some(T::default()),
        Some(_) => required(params),
    }
}

fn required<T: DeserializeOwned>(params: Option<&RawValue>) -> Option<T> {
    // Of an array serde would make the same as of an object.
    let object = params?.get();
    let object = object.starts_with('{').then_some(object)?;
    serde_json::from_str(object).ok()
}

fn invalid(message: impl Display) -> Failure {
    Failure::new(INVALID_PARAMS, message.to_string())
}

/// What all results have in them, numbers, text and lists, JSON can hold.
fn json(result: &impl Serialize) -> Result<Box<RawValue>, Failure> {
    to_raw_value(result).map_err(invalid)
}
