//! What the kernel lets a worker do once it runs: forward packets, say what it counted, and end.
//!
//! A worker is the thread that reads what strangers send. If a packet ever gets the better of it, there is
//! little to be had: no capabilities, and a filter (seccomp) that knows these system calls only, in this form:
//!
//! | call                     | only with                                     | for                            |
//! |--------------------------|-----------------------------------------------|--------------------------------|
//! | `sendto`                 | no bytes, no address, `MSG_DONTWAIT`          | waking the transmit side       |
//! | `recvfrom`               | no bytes, no address, `MSG_DONTWAIT`          | waking the receive side        |
//! | `ppoll`                  | at most three descriptors, no signal mask     | sleeping until a packet comes  |
//! | `getsockopt`             | `SOL_XDP`, `XDP_STATISTICS`                   | the kernel's counters          |
//! | `clock_gettime`          | `CLOCK_MONOTONIC`                             | the time, without a vDSO       |
//! | `futex`                  | wait and wake, private to this process        | locks of report and orders     |
//! | `sched_yield`            |                                               | an order that is being written |
//! | `madvise`                | `MADV_DONTNEED`                               | the end of the thread: stack   |
//! | `sigaltstack`            |                                               | the same: its signal stack     |
//! | `munmap`                 | at most [`UNMAP_BYTES_MAX`] bytes             | the same                       |
//! | `rt_sigprocmask`, `exit` |                                               | the same                       |
//! | `write`                  | standard error                                | the last words of a panic      |
//! | `write`                  | other workers' bells, eight bytes             | waking them for a packet       |
//! | `read`                   | its own bell, eight bytes                     | waking up                      |
//! | `getpid`, `gettid`       |                                               | abort                          |
//! | `tgkill`                 | this process, `SIGABRT`                       | abort                          |
//! | `rt_sigaction`           | `SIGSEGV`, `SIGBUS`                           | a crash that is named so       |
//! | `rt_sigreturn`           |                                               | the same                       |
//!
//! Anything else ends the **process** by `SIGSYS`, for half a gateway is worse than none: the kernel detaches
//! the XDP programs, and a bridge carries the traffic on. So does anything in this list with other arguments.
//!
//! **Invariants.** A worker that has started allocates nothing, opens nothing and closes nothing; what must be
//! closed in the end, it hands back to the thread that started it.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, Le};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::privileges;

/// A worker unmaps its signal stack and nothing else; packet memory and flow table are far larger.
pub const UNMAP_BYTES_MAX: u64 = 256 << 10;

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Giving up capabilities.
    #[error("giving up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The filter could not be made: an architecture that it is not made for.
    #[error("making the filter of system calls for {architecture}: {0}", architecture = std::env::consts::ARCH)]
    Filter(#[from] BackendError),
    /// The kernel did not take it.
    #[error("setting the filter of system calls (the kernel needs CONFIG_SECCOMP_FILTER): {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// Descriptors by which workers wake each other.
#[derive(Debug, Clone, Default)]
pub struct Bells {
    /// What the worker sleeps on.
    pub own: Option<RawFd>,
    /// What it may ring.
    pub others: Vec<RawFd>,
}

/// Confines the calling thread for the rest of its life.
///
/// # Errors
///
/// When the kernel refuses, or there is no filter for this architecture.
pub fn enter(bells: &Bells) -> Result<(), SandboxError> {
    privileges::keep_nothing()?;
    seccompiler::apply_filter(&filter(bells)?)?;
    Ok(())
}

fn filter(bells: &Bells) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(
        allowed(bells)?,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}

/// Condition on one argument of a call: its position, its width in the kernel, what it must be.
type Argument = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// The table above.
fn allowed(bells: &Bells) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let no_wait = libc::MSG_DONTWAIT as u64;
    let error_output = libc::STDERR_FILENO as u64;
    let us = u64::from(std::process::id());
    let futex = |operation| vec![(1, Dword, Eq, (operation | libc::FUTEX_PRIVATE_FLAG) as u64)];
    let crash = |signal| vec![(0, Dword, Eq, signal as u64)];
    let wake =
        || vec![(2, Qword, Eq, 0), (3, Dword, Eq, no_wait), (4, Qword, Eq, 0), (5, Qword, Eq, 0)];
    let calls: [(i64, Vec<Argument>); 21] = [
        (libc::SYS_sendto, wake()),
        (libc::SYS_recvfrom, wake()),
        (libc::SYS_ppoll, vec![(1, Dword, Le, 3), (3, Qword, Eq, 0)]),
        (
            libc::SYS_getsockopt,
            vec![(1, Dword, Eq, libc::SOL_XDP as u64), (2, Dword, Eq, libc::XDP_STATISTICS as u64)],
        ),
        (libc::SYS_clock_gettime, vec![(0, Dword, Eq, libc::CLOCK_MONOTONIC as u64)]),
        (libc::SYS_futex, futex(libc::FUTEX_WAIT)),
        (libc::SYS_futex, futex(libc::FUTEX_WAIT_BITSET)),
        (libc::SYS_futex, futex(libc::FUTEX_WAKE)),
        (libc::SYS_sched_yield, vec![]),
        (libc::SYS_madvise, vec![(2, Dword, Eq, libc::MADV_DONTNEED as u64)]),
        (libc::SYS_sigaltstack, vec![]),
        (libc::SYS_munmap, vec![(1, Qword, Le, UNMAP_BYTES_MAX)]),
        (libc::SYS_rt_sigprocmask, vec![]),
        (libc::SYS_exit, vec![]),
        (libc::SYS_write, vec![(0, Dword, Eq, error_output)]),
        (libc::SYS_getpid, vec![]),
        (libc::SYS_gettid, vec![]),
        (libc::SYS_tgkill, vec![(0, Dword, Eq, us), (2, Dword, Eq, libc::SIGABRT as u64)]),
        (libc::SYS_rt_sigaction, crash(libc::SIGSEGV)),
        (libc::SYS_rt_sigaction, crash(libc::SIGBUS)),
        (libc::SYS_rt_sigreturn, vec![]),
    ];
    let bell = |descriptor: RawFd| {
        vec![(0, Dword, Eq, descriptor as u64), (2, Qword, Eq, size_of::<u64>() as u64)]
    };
    let own = bells.own.iter().map(|own| (libc::SYS_read, bell(*own)));
    let others = bells.others.iter().map(|other| (libc::SYS_write, bell(*other)));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, arguments) in calls.into_iter().chain(own).chain(others) {
        // A call without rules is allowed whatever its arguments.
        let alternatives = rules.entry(call).or_default();
        if !arguments.is_empty() {
            let conditions = arguments.into_iter().map(|(position, width, comparison, value)| {
                SeccompCondition::new(position, width, comparison, value)
            });
            alternatives.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    Ok(rules)
}
