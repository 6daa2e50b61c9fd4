//! System calls that are refused to one thread, as sandboxes refuse them, and a system that is at
//! its limits.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// A system call to be refused.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    number: i64,
    /// Only if the argument at this place has this value.
    argument: Option<(u8, u64)>,
}

impl Call {
    /// A system call, with whatever arguments.
    pub fn any(number: libc::c_long) -> Self {
        Call { number, argument: None }
    }

    /// That epoll watches one more descriptor.
    pub fn watch() -> Self {
        let argument = Some((1, libc::EPOLL_CTL_ADD as u64));
        Call { number: libc::SYS_epoll_ctl, argument }
    }
}

/// From here on these calls fail with this error, for the calling thread and those that it makes.
/// Nothing takes that back.
pub fn deny(calls: &[Call], error: i32) {
    let rule = |call: &Call| {
        let equals = |(place, value)| {
            SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        };
        let condition = call.argument.map(equals).transpose().expect("there are six arguments");
        let rule = condition.map(|condition| SeccompRule::new(vec![condition]));
        let rule = rule.transpose().expect("it has a condition");
        (call.number, rule.into_iter().collect())
    };
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.iter().map(rule).collect();
    let refusal = SeccompAction::Errno(error as u32);
    let architecture = ARCH.try_into().expect("the filter knows the processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture);
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    apply_filter(&program).expect("the system has filters");
}

/// Runs something on a thread to which these calls are refused.
pub fn denied<T: Send>(calls: &[Call], error: i32, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            deny(calls, error);
            act()
        });
        thread.join().expect("it does not panic")
    })
}
