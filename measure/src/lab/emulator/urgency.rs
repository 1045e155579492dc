//! How the calling thread is scheduled: thin kernel calls.

#![allow(unsafe_code)]

use std::io;

/// Lets the calling thread run as soon as it has something to do, before all that are scheduled by fairness: a wire
/// waits for no processor.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_NICE.
pub(super) fn run_first() -> io::Result<()> {
    // No timer is bundled with later ones to save wake-ups.
    nix::sys::prctl::set_timerslack(1)?;
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the parameters of the calling thread, which is what 0 means.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
