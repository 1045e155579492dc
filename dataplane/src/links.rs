//! News of network interfaces, from the kernel (rtnetlink).
//!
//! An interface that goes and comes back between two looks at it looks as if nothing had happened, and yet
//! its sockets are dead: the kernel's own words are needed.
//!
//! **Invariant.** What went is reported once, and never forgotten: when the kernel says that messages were
//! lost, everything may have gone.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// Longer than any datagram of the kernel's about links.
const DATAGRAM_BYTES_MAX: usize = 65536;
/// `RTMGRP_LINK` of linux/rtnetlink.h.
const GROUP_LINK: u32 = 1;
/// `RTM_DELLINK`.
const TYPE_DELETE_LINK: u16 = 17;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;
/// `struct ifinfomsg`: family and padding, type, index, flags, change.
const LINK_BYTES: usize = 16;

/// Listens from the moment it is made, in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct News {
    socket: OwnedFd,
    datagram: Box<[u8]>,
}

/// What went since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// By number.
    indexes: BTreeSet<u32>,
    /// Messages were lost.
    perhaps_all: bool,
}

impl Gone {
    /// Whether the interface with this number went, or may have gone.
    pub fn has(&self, index: u32) -> bool {
        self.perhaps_all || self.indexes.contains(&index)
    }

    /// Takes the messages of one datagram. What is cut short or unknown says nothing.
    fn read(&mut self, mut datagram: &[u8]) {
        while let Some(header) = datagram.get(..HEADER_BYTES) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(message) = datagram.get(..length) else { return };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            if kind == TYPE_DELETE_LINK
                && let Some(link) = message.get(HEADER_BYTES..HEADER_BYTES + LINK_BYTES)
            {
                // A bridge says the same, in its own family, of a port that leaves it.
                if u32::from(link[0]) == libc::AF_UNSPEC as u32 {
                    let index = u32::from_ne_bytes([link[4], link[5], link[6], link[7]]);
                    self.indexes.insert(index);
                }
            }
            // A length that does not get on would be read for ever.
            let next = length.next_multiple_of(4).max(HEADER_BYTES);
            datagram = datagram.get(next..).unwrap_or_default();
        }
    }
}

impl News {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// When the kernel has no rtnetlink.
    pub fn listen() -> io::Result<News> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_LINK))?;
        Ok(News { socket, datagram: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice() })
    }

    /// What went since this was last called. Does not wait.
    pub fn read(&mut self) -> Gone {
        let mut gone = Gone::default();
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.datagram, MsgFlags::empty()) {
                Ok(bytes) => gone.read(&self.datagram[..bytes]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return gone,
                // ENOBUFS: more came than the socket holds.
                Err(_) => {
                    gone.perhaps_all = true;
                    return gone;
                }
            }
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut bytes = 32_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    fn read(datagram: &[u8]) -> Gone {
        let mut gone = Gone::default();
        gone.read(datagram);
        gone
    }

    #[test]
    fn an_interface_that_went_is_named_wherever_it_stands() {
        let datagram = [message(16, 0, 5), message(17, 0, 7), message(17, 0, 9)].concat();
        let gone = read(&datagram);
        assert!(gone.has(7) && gone.has(9) && !gone.has(5));
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        assert!(!read(&message(17, libc::AF_BRIDGE as u8, 7)).has(7));
    }

    #[test]
    fn what_is_cut_short_says_nothing_and_ends() {
        let whole = message(17, 0, 7);
        for bytes in 0..whole.len() {
            assert_eq!(read(&whole[..bytes]), Gone::default());
        }
        for length in [0_u32, 1, 15, 16, 31] {
            let mut short = whole.clone();
            short[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(!read(&short).has(7), "{length}");
        }
    }
}
