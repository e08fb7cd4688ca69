//! Carries out the command line: forwards for a VM, starts a command that is one, or measures.

use std::process::ExitCode;

use anyhow::Context;
use softnet::control::{Channel, Rights};
use softnet::host::descriptors::{self, ForCommand, Inherited};
use softnet::host::liveness::Parent;
use softnet::host::{log, spawn};

use super::ask::ask;
use super::check::check;
use super::cli::Invocation;
use super::start::Session;
use super::supervise::supervise;
use super::uplink::Privileges;
use crate::benchmark;

/// Carries out the command line, to the end.
pub(crate) fn run(invocation: Invocation) -> anyhow::Result<ExitCode> {
    match invocation {
        Invocation::Probe => Ok(ExitCode::SUCCESS),
        Invocation::Forward {
            vm_fd,
            control_fd,
            escalated,
            config,
        } => {
            let named = [config.user.is_some(), config.group.is_some()];
            let host_fd = config.uplink.host_fd();
            let get_rights = || Privileges::get(vm_fd, control_fd, escalated, named);
            let rights = host_fd.is_none().then(get_rights).transpose()?;
            let Inherited { vm, control, host } =
                descriptors::inherit(Some(vm_fd), control_fd, host_fd)?;
            let socket = vm.context("no descriptor")?;
            let config = config.with_policy_file()?;
            // Early, because the process that started softnet may end at any moment.
            let parent = Parent::watch();
            log::start();
            // What has come over it waits there until the rights are gone.
            let control = control
                .map(|socket| Channel::new(socket, Rights::Steer))
                .transpose()?;
            let Some(session) = Session::open(&config, socket, host, rights.as_ref())? else {
                return Ok(ExitCode::SUCCESS);
            };
            let (services, frames) = session.forward(&config, parent, control, None)?;
            supervise(services, frames).map(ExitCode::from)
        }
        Invocation::Run { command, config } => {
            let passed = ForCommand::inherit()?;
            let config = config.with_policy_file()?;
            log::start();
            let (ours, vms) = spawn::socket()?;
            let Some(session) = Session::open(&config, ours, None, None)? else {
                return Ok(ExitCode::SUCCESS);
            };
            let command = (command, vms, passed);
            let (services, frames) = session.forward(&config, None, None, Some(command))?;
            supervise(services, frames).map(ExitCode::from)
        }
        Invocation::Check(what) => check(what),
        Invocation::Ask(what) => ask(what),
        Invocation::Bench(args) => benchmark::run(&args),
        Invocation::BenchSubject(args) => benchmark::run_subject(&args),
    }
}
