//! A network interface as the kernel describes it now.
//!
//! **Invariant.** Everything is asked of the network namespace of the calling thread, by `ioctl`:
//! `/sys` may show another namespace's interfaces.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::XdpError;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// What its frames begin with: an `ARPHRD_` of linux/if_arp.h.
    pub link_type: u16,
    /// Its MAC address, when it is an Ethernet interface.
    pub address: [u8; 6],
    /// Its MTU in bytes: what a packet may have without its Ethernet header.
    pub mtu: u32,
    /// Receive queues in use; 1 where the driver does not tell.
    pub queues: u32,
    /// Whether it is up and has a link.
    pub running: bool,
}

impl Interface {
    /// The interface of this name in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn find(name: &str) -> Result<Interface, XdpError> {
        let fail = |operation, cause: io::Error| XdpError::Interface {
            interface: name.to_owned(),
            operation,
            cause,
        };
        let index = if_nametoindex(name).map_err(|errno| fail("looking it up", errno.into()))?;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| fail("opening a socket to ask it", errno.into()))?;
        let (link_type, address) = hardware_address(&socket, name)
            .map_err(|cause| fail("asking for its MAC address", cause))?;
        let mtu = mtu(&socket, name).map_err(|cause| fail("asking for its MTU", cause))?;
        let queues = queues(&socket, name).unwrap_or(1);
        let running = running(&socket, name).map_err(|cause| fail("asking for its link", cause))?;
        let name = name.to_owned();
        Ok(Interface { name, index, link_type, address, mtu, queues, running })
    }

    /// Whether frames here have Ethernet headers.
    pub fn is_ethernet(&self) -> bool {
        self.link_type == libc::ARPHRD_ETHER
    }

    /// Has the NIC leave VLAN tags in the frames it receives: a tag taken off before XDP sees the frame is
    /// taken off the wire. Returns whether that had to be changed.
    ///
    /// # Errors
    ///
    /// When the driver strips tags and cannot be told otherwise.
    pub(super) fn keep_vlan_tags(&self) -> io::Result<bool> {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // A driver that does not tell has no such offload.
        let strips = |flags: u32| flags & ETH_FLAG_RXVLAN != 0;
        let before = flags(&socket, &self.name).unwrap_or(0);
        if !strips(before) {
            return Ok(false);
        }
        set_flags(&socket, &self.name, before & !ETH_FLAG_RXVLAN)?;
        if strips(flags(&socket, &self.name)?) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(true)
    }
}

/// The type of the link, and the address.
fn hardware_address(socket: &OwnedFd, name: &str) -> io::Result<(u16, [u8; 6])> {
    let mut request = request(name)?;
    // SAFETY: this request has no pointer.
    unsafe { ask(socket, libc::SIOCGIFHWADDR, &mut request) }?;
    // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has written this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok((address.sa_family, std::array::from_fn(|index| address.sa_data[index] as u8)))
}

fn mtu(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    let mut request = request(name)?;
    // SAFETY: this request has no pointer.
    unsafe { ask(socket, libc::SIOCGIFMTU, &mut request) }?;
    // SAFETY: SIOCGIFMTU succeeded, so the kernel has written this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

fn running(socket: &OwnedFd, name: &str) -> io::Result<bool> {
    const UP_WITH_LINK: i32 = libc::IFF_UP | libc::IFF_RUNNING;
    let mut request = request(name)?;
    // SAFETY: this request has no pointer.
    unsafe { ask(socket, libc::SIOCGIFFLAGS, &mut request) }?;
    // SAFETY: SIOCGIFFLAGS succeeded, so the kernel has written this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & UP_WITH_LINK == UP_WITH_LINK)
}

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    command: u32,
    max: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

fn queues(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    let mut channels = EthtoolChannels { command: ETHTOOL_GCHANNELS, ..Default::default() };
    // SAFETY: ETHTOOL_GCHANNELS reads and writes one `ethtool_channels`.
    unsafe { ask_ethtool(socket, name, (&raw mut channels).cast()) }?;
    Ok((channels.receive + channels.combined).max(1))
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// The receive-side VLAN offload in the flags of ETHTOOL_GFLAGS and ETHTOOL_SFLAGS.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

fn flags(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: ETHTOOL_GFLAGS reads and writes one `ethtool_value`.
    unsafe { ask_ethtool(socket, name, (&raw mut value).cast()) }?;
    Ok(value.data)
}

fn set_flags(socket: &OwnedFd, name: &str, flags: u32) -> io::Result<()> {
    const ETHTOOL_SFLAGS: u32 = 0x26;
    let mut value = EthtoolValue { command: ETHTOOL_SFLAGS, data: flags };
    // SAFETY: ETHTOOL_SFLAGS reads one `ethtool_value`.
    unsafe { ask_ethtool(socket, name, (&raw mut value).cast()) }
}

/// # Safety
///
/// `question` points to the structure that its first member, the command, stands for.
unsafe fn ask_ethtool(socket: &OwnedFd, name: &str, question: *mut libc::c_char) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = question;
    // SAFETY: the caller says what the pointer points to.
    unsafe { ask(socket, libc::SIOCETHTOOL, &mut request) }
}

/// # Safety
///
/// Where `what` takes a pointer in the request, it points to what the kernel will read and write
/// there.
unsafe fn ask(socket: &OwnedFd, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one `ifreq` at the pointer, which is borrowed for the
    // call, and what the caller vouches for.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request about the interface called `name`, terminated by the zeros around it.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is numbers and, in a union, a pointer: all zeros are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = CString::new(name)?;
    let name = name.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let loopback = Interface::find("lo").expect("every namespace has one");
        assert_eq!(loopback.address, [0; 6]);
        assert!(!loopback.is_ethernet());
        assert!(loopback.mtu > 0);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = Interface::find("nosuchport0").expect_err("it does not exist");
        assert!(error.to_string().starts_with("nosuchport0: "), "{error}");
    }
}
