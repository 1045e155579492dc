//! Socket options that no crate wraps.
//!
//! **Invariant.** An option that only makes things faster never fails the caller: an old kernel may
//! not know it, and the reason is logged.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Transmit budget of copy mode, linux/if_xdp.h since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// How long the kernel may busy-poll for this socket in one call.
const BUSY_POLL_US: u32 = 20;

/// Whether the socket runs in zero-copy mode: what the kernel does, not what was asked for.
pub(super) fn zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    let mut length = size_of_val(&options) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `options`, which is its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            std::ptr::from_mut(&mut options).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Lets one call send a whole ring in copy mode. Without it: 32 frames.
pub(super) fn raise_transmit_budget(socket: BorrowedFd<'_>, frames: u32) {
    hint(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames, "XDP_MAX_TX_SKB_BUDGET");
}

/// Lets as many bytes wait behind the socket in copy mode. Without it: some 90 frames, by sysctl
/// net.core.wmem_default.
pub(super) fn raise_send_buffer(socket: BorrowedFd<'_>, bytes: u32) {
    let bytes = bytes.min(i32::MAX.cast_unsigned() / 2);
    hint(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes, "SO_SNDBUFFORCE");
}

/// Makes the socket's own calls run the driver's receive loop, `budget` packets at a time.
pub(super) fn prefer_busy_poll(socket: BorrowedFd<'_>, budget: u32) {
    let options = [
        (libc::SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL"),
        (libc::SO_BUSY_POLL, BUSY_POLL_US, "SO_BUSY_POLL"),
        (libc::SO_BUSY_POLL_BUDGET, budget, "SO_BUSY_POLL_BUDGET"),
    ];
    for (option, value, name) in options {
        hint(socket, libc::SOL_SOCKET, option, value, name);
    }
}

/// Has the interface receive frames to any address, as long as the packet socket is open.
pub(super) fn receive_all(socket: BorrowedFd<'_>, interface_index: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: interface_index.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the kernel reads as many bytes at the pointer as `request` has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            std::ptr::from_ref(&request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn hint(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32, name: &str) {
    // SAFETY: the kernel reads four bytes at the pointer, the size of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result < 0 {
        let reason = io::Error::last_os_error();
        tracing::debug!(option = name, value, %reason, "the kernel refuses this socket option");
    }
}
