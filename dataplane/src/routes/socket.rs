//! Two sockets to the kernel's rtnetlink: one that hears what changes, one that asks.
//!
//! **Invariant.** What is believed came from the kernel (port 0), whole. A datagram that did not fit, or for which
//! there was no room in the socket, is known to be lost.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::message::{self, FLAG_DUMP_INTERRUPTED, Message, TYPE_DONE, TYPE_ERROR, messages};

/// The kernel's datagrams have at most 32 KiB.
const DATAGRAM_BYTES_MAX: usize = 65536;
/// What the socket for news holds while nobody reads: some 20 000 changes of routes.
const NEWS_BYTES: usize = 16 << 20;
/// Longest time to wait for an answer of the kernel, which answers at once.
const ANSWER_SECONDS_MAX: i64 = 5;
/// Times that a dump is begun anew because what it dumps changed meanwhile.
const INTERRUPTIONS_MAX: u32 = 8;

/// `RTNLGRP_LINK`, `NEIGH`, `IPV4_IFADDR`, `IPV4_ROUTE`, `IPV6_IFADDR`, `IPV6_ROUTE`, `NEXTHOP`.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// Hears what changes.
#[derive(Debug)]
pub(super) struct News {
    socket: OwnedFd,
    datagram: Box<[u8]>,
}

/// What became of one look at the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A datagram; there may be more.
    Something,
    /// No more for now.
    Nothing,
    /// Something was lost: everything has to be asked anew.
    Lost,
}

impl News {
    /// Begins to listen, in the network namespace of the calling thread.
    pub(super) fn listen() -> io::Result<News> {
        let socket = open(SockFlag::SOCK_NONBLOCK)?;
        // Beyond the system's limit only with CAP_NET_ADMIN; as much as it gives will do.
        if setsockopt(&socket, sockopt::RcvBufForce, &NEWS_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &NEWS_BYTES)?;
        }
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(News { socket, datagram: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice() })
    }

    /// Hands the messages of the next datagram to `take`. Does not wait.
    pub(super) fn read(&mut self, mut take: impl FnMut(Message<'_>)) -> Heard {
        match receive(&self.socket, &mut self.datagram) {
            Ok(Some(datagram)) => messages(datagram).for_each(&mut take),
            Ok(None) => return Heard::Lost,
            Err(Errno::EAGAIN) => return Heard::Nothing,
            Err(Errno::EINTR) => {}
            // ENOBUFS: more came than the socket holds.
            Err(_) => return Heard::Lost,
        }
        Heard::Something
    }
}

impl News {
    /// Forgets what waits in the socket.
    pub(super) fn discard(&mut self) {
        // As much as the socket holds, at the most; the smallest datagrams take more room than this.
        for _ in 0..NEWS_BYTES / 256 {
            // Lost again is no news.
            if let Err(Errno::EAGAIN) = receive(&self.socket, &mut self.datagram) {
                return;
            }
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks.
#[derive(Debug)]
pub(super) struct Questions {
    socket: OwnedFd,
    datagram: Box<[u8]>,
    sequence: u32,
}

impl Questions {
    pub(super) fn open() -> io::Result<Questions> {
        let socket = open(SockFlag::empty())?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS_MAX, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let datagram = vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice();
        Ok(Questions { socket, datagram, sequence: 0 })
    }

    /// Hands every message of a kind to `take`. What changes meanwhile makes the kernel say so, and the
    /// question is asked again: `take` may see the same thing twice, and the last time is right.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        family: i32,
        mut take: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        for _ in 0..INTERRUPTIONS_MAX {
            if self.dump_once(kind, family, &mut take)? {
                return Ok(());
            }
        }
        // The news of what changed meanwhile wait in the other socket, and make good what is wrong.
        Ok(())
    }

    /// Has the kernel find out or confirm a neighbour's MAC address. It does so when it can: there is no answer.
    pub(super) fn use_neighbour(
        &mut self,
        interface: u32,
        address: std::net::IpAddr,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::use_neighbour(interface, address, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        Ok(())
    }

    /// Whether nothing changed meanwhile.
    fn dump_once(
        &mut self,
        kind: u16,
        family: i32,
        take: &mut impl FnMut(Message<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::dump(kind, family, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut is_sound = true;
        loop {
            let datagram = match receive(&self.socket, &mut self.datagram) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for message in messages(datagram) {
                // Errors of neighbours that could not be used come before.
                if message.sequence != self.sequence {
                    continue;
                }
                is_sound &= message.flags & FLAG_DUMP_INTERRUPTED == 0;
                match message.kind {
                    TYPE_DONE => return Ok(is_sound),
                    TYPE_ERROR if message.errno() == 0 => {}
                    TYPE_ERROR => return Err(io::Error::from_raw_os_error(message.errno())),
                    _ => take(message),
                }
            }
        }
    }
}

fn open(flags: SockFlag) -> nix::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}

/// The next datagram of the kernel's; none when it did not fit. Another sender's is empty.
fn receive<'a>(socket: &OwnedFd, datagram: &'a mut [u8]) -> nix::Result<Option<&'a [u8]>> {
    let (bytes, sender) = recvfrom::<NetlinkAddr>(socket.as_raw_fd(), datagram)?;
    // A netlink socket cuts a datagram that is too long to the length of the buffer.
    if bytes >= datagram.len() {
        return Ok(None);
    }
    let is_the_kernels = sender.is_some_and(|sender| sender.pid() == 0);
    Ok(Some(if is_the_kernels { &datagram[..bytes] } else { &[] }))
}
