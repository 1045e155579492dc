//! An interface of which an emulator takes all frames, and to which it gives those of the other: thin kernel calls.
//!
//! Each frame comes with the time that it has waited for us, by the kernel's stamp: so how late the emulator looks
//! does not add to its delay.
//!
//! Invariant: what is received is a whole frame. A longer one than fits was no single packet of a wire; it is counted
//! and not taken.

#![allow(unsafe_code)]

use std::array::from_fn;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use super::direction::Held;
use crate::source::interface::Interface;
use crate::source::packet_ring::{get, listen, set};

/// Bytes of a frame, at most.
const FRAME_BYTES: usize = 2048;
/// Frames that are received or sent by one call.
pub(super) const BATCH: usize = 32;
/// Of the socket, for what comes while the emulator does not run: with the kernel's own bytes for each frame, half
/// a second at 100 Mbit/s.
const SOCKET_BYTES: usize = 16 << 20;

/// A frame.
pub(super) struct Frame {
    bytes: [u8; FRAME_BYTES],
    length: usize,
}

impl Default for Frame {
    fn default() -> Frame {
        Frame { bytes: [0; FRAME_BYTES], length: 0 }
    }
}

/// An interface.
pub(super) struct Port {
    socket: OwnedFd,
    /// What the next frames are received into.
    #[expect(clippy::vec_box, reason = "frames are handed on without a copy")]
    empty: Vec<Box<Frame>>,
    oversize: u64,
    missed: u64,
}

/// What comes with a frame: the kernel's stamp.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    stamp: libc::timespec,
}

const NO_CONTROL: Control = Control {
    header: libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 },
    stamp: libc::timespec { tv_sec: 0, tv_nsec: 0 },
};

impl Port {
    /// Takes all frames of an interface from now on.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or CAP_NET_RAW is missing.
    pub(super) fn open(name: &str) -> io::Result<Port> {
        let interface = Interface::find(name)?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
        // Beyond the system's limit, which only CAP_NET_ADMIN may exceed.
        if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BYTES)?;
        }
        listen(&socket, interface.index())?;
        Ok(Port { socket, empty: Vec::new(), oversize: 0, missed: 0 })
    }

    /// Takes a batch of frames, if there are any, with the time that each has waited; empty ones come from the pool.
    ///
    /// # Errors
    ///
    /// The socket's. That the interface is down is none.
    #[expect(clippy::vec_box, reason = "frames are handed on without a copy")]
    pub(super) fn receive(
        &mut self,
        pool: &mut Vec<Box<Frame>>,
        mut each: impl FnMut(&mut Vec<Box<Frame>>, Duration, Box<Frame>),
    ) -> io::Result<()> {
        while self.empty.len() < BATCH {
            self.empty.push(pool.pop().unwrap_or_default());
        }
        let mut controls = [NO_CONTROL; BATCH];
        let mut vectors: [libc::iovec; BATCH] = from_fn(|at| vector(&mut self.empty[at].bytes));
        let mut messages: [libc::mmsghdr; BATCH] =
            from_fn(|at| message(&mut vectors[at], Some(&mut controls[at])));
        let (descriptor, flags) = (self.socket.as_raw_fd(), libc::MSG_DONTWAIT);
        let pointer = messages.as_mut_ptr();
        // SAFETY: as many messages as said; each names a frame and a control structure of its own, with their sizes.
        let received =
            unsafe { libc::recvmmsg(descriptor, pointer, BATCH as u32, flags, null_mut()) };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NetworkDown => Ok(()),
                _ => Err(error),
            };
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received = received.cast_unsigned() as usize;
        for (at, mut frame) in self.empty.drain(..received).enumerate() {
            if messages[at].msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.oversize += 1;
                pool.push(frame);
                continue;
            }
            frame.length = messages[at].msg_len as usize;
            each(pool, waited(&controls[at], now), frame);
        }
        Ok(())
    }

    /// Sends a batch of frames: how many went.
    pub(super) fn send(&self, frames: &[Held]) -> u64 {
        let (mut at, mut sent) = (0, 0);
        while at < frames.len() {
            match self.send_some(&frames[at..]) {
                Ok(count) => {
                    at += count;
                    sent += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The first of them was not taken.
                Err(_) => at += 1,
            }
        }
        sent
    }

    fn send_some(&self, frames: &[Held]) -> io::Result<usize> {
        let count = frames.len().min(BATCH);
        // The kernel only reads what it is to send.
        let mut vectors: [libc::iovec; BATCH] = from_fn(|at| {
            let bytes = frames.get(at).map_or(&[][..], |held| held.frame.bytes());
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        });
        let mut messages: [libc::mmsghdr; BATCH] = from_fn(|at| message(&mut vectors[at], None));
        let (descriptor, pointer) = (self.socket.as_raw_fd(), messages.as_mut_ptr());
        // SAFETY: no more messages than there are, and each names a frame that is borrowed until the call returns.
        let sent = unsafe { libc::sendmmsg(descriptor, pointer, count as u32, 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent.cast_unsigned() as usize) }
    }

    /// Frames that were too long to be taken.
    pub(super) fn oversize(&self) -> u64 {
        self.oversize
    }

    /// Frames that the kernel had no room for, because the emulator did not run for too long.
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub(super) fn missed(&mut self) -> io::Result<u64> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        // The kernel counts anew whenever it was asked.
        get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counts)?;
        self.missed += u64::from(counts.tp_drops);
        Ok(self.missed)
    }
}

impl Frame {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn vector(bytes: &mut [u8; FRAME_BYTES]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message(vector: &mut libc::iovec, control: Option<&mut Control>) -> libc::mmsghdr {
    let (control, control_bytes) = match control {
        Some(control) => (std::ptr::from_mut(control).cast(), size_of::<Control>()),
        None => (null_mut(), 0),
    };
    let header = libc::msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: vector,
        msg_iovlen: 1,
        msg_control: control,
        msg_controllen: control_bytes,
        msg_flags: 0,
    };
    libc::mmsghdr { msg_hdr: header, msg_len: 0 }
}

/// Since the kernel stamped it. A clock that was set meanwhile makes no delay, and no frame waits for long.
fn waited(control: &Control, now: Duration) -> Duration {
    let kind = (control.header.cmsg_level, control.header.cmsg_type);
    if kind != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(control.stamp.tv_sec).unwrap_or_default();
    let stamp = Duration::new(seconds, control.stamp.tv_nsec as u32);
    now.checked_sub(stamp).filter(|waited| *waited < Duration::from_secs(1)).unwrap_or_default()
}
