//! Port forwarding.

use std::ffi::c_void;
use std::mem;
use std::net::Ipv4Addr;
use std::ptr;
use std::sync::Arc;
use std::thread;

use crate::block::Copied;
use crate::outside;
use crate::script::Rules;
use crate::vmnet::{INVALID_ARGUMENT, Interface, Rule, SUCCESS, Status, interface};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_ip_port_forwarding_rule(
    raw: *mut c_void,
    protocol: u8,
    external: u16,
    family: u8,
    address: *const c_void,
    internal: u16,
    handler: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    if (protocol, family) != (6, 2) {
        return interface.misused("a rule for neither TCP nor IPv4");
    }
    let to = Ipv4Addr::from(unsafe { ptr::read_unaligned(address.cast::<[u8; 4]>()) });
    answer(&interface, handler, move |rules| {
        if rules.iter().any(|rule| rule.external == external) {
            return INVALID_ARGUMENT;
        }
        rules.push(Rule {
            external,
            to,
            internal,
        });
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_ip_port_forwarding_rule(
    raw: *mut c_void,
    protocol: u8,
    external: u16,
    family: u8,
    handler: *const c_void,
) -> Status {
    let Some(interface) = interface(raw) else {
        return INVALID_ARGUMENT;
    };
    if (protocol, family) != (6, 2) {
        return interface.misused("a rule for neither TCP nor IPv4");
    }
    answer(&interface, handler, move |rules| {
        let before = rules.len();
        rules.retain(|rule| rule.external != external);
        if rules.len() < before {
            SUCCESS
        } else {
            INVALID_ARGUMENT
        }
    })
}

/// Answers from a thread of nobody's, as vmnet does where it takes no queue.
fn answer(
    interface: &Arc<Interface>,
    handler: *const c_void,
    change: impl FnOnce(&mut Vec<Rule>) -> Status + Send + 'static,
) -> Status {
    let handler = Copied::of(handler);
    let interface = Arc::clone(interface);
    thread::spawn(move || {
        let status = {
            let mut state = interface.lock();
            match interface.script.rules {
                Rules::Never => return mem::forget(handler),
                Rules::Refused(status, times) if state.rules_refused < times => {
                    state.rules_refused += 1;
                    status
                }
                _ => {
                    let status = change(&mut state.rules);
                    outside::report_rules(&state.rules);
                    status
                }
            }
        };
        handler.call_1(status);
    });
    SUCCESS
}
