//! What the kernel knows of a network interface, and may be told of it: thin calls of `ioctl`.
//!
//! Everything is asked of the network namespace of the calling thread. The structures are those of
//! linux/ethtool.h, linux/if.h and linux/net_tstamp.h; what is decided with them is in
//! [`super::timestamping`] and [`super::offloads`].
//!
//! Invariant: a request names its interface by name, so an interface that goes makes calls fail and never reaches
//! another one.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A network interface, and a socket to ask about it.
#[derive(Debug)]
pub struct Interface {
    name: String,
    index: u32,
    socket: OwnedFd,
}

/// `struct hwtstamp_config` of linux/net_tstamp.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardwareStamping {
    /// None are defined that concern receiving.
    pub flags: i32,
    /// Which sent packets the NIC stamps: an `HWTSTAMP_TX_*`.
    pub transmit: i32,
    /// Which received packets the NIC stamps: an `HWTSTAMP_FILTER_*`.
    pub receive: i32,
}

/// What of `struct ethtool_ts_info` concerns receiving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StampingOffer {
    /// `SOF_TIMESTAMPING_*`.
    pub flags: u32,
    /// A bit for each `HWTSTAMP_FILTER_*`.
    pub receive: u32,
    /// The number of the NIC's clock (`/dev/ptpN`), if it has one.
    pub clock: Option<u32>,
}

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    ///
    /// When there is none, or no socket to ask.
    pub fn find(name: &str) -> io::Result<Interface> {
        let index = if_nametoindex(name)?;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Interface { name: name.to_owned(), index, socket })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface that was found is still there, under its name.
    pub fn exists(&self) -> bool {
        if_nametoindex(self.name.as_str()) == Ok(self.index)
    }

    /// Whether it is up.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn is_up(&self) -> io::Result<bool> {
        let mut request = self.request()?;
        // SAFETY: this request has no pointer.
        unsafe { self.ask(libc::SIOCGIFFLAGS, &mut request) }?;
        // SAFETY: SIOCGIFFLAGS succeeded, so the kernel has written this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & libc::IFF_UP != 0)
    }

    /// Whether its frames are Ethernet's (the loopback interface's look the same).
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn is_ethernet(&self) -> io::Result<bool> {
        let mut request = self.request()?;
        // SAFETY: this request has no pointer.
        unsafe { self.ask(libc::SIOCGIFHWADDR, &mut request) }?;
        // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has written this member of the union.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        Ok([libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&address.sa_family))
    }

    /// Its MTU: bytes of a packet without the Ethernet header.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request()?;
        // SAFETY: this request has no pointer.
        unsafe { self.ask(libc::SIOCGIFMTU, &mut request) }?;
        // SAFETY: SIOCGIFMTU succeeded, so the kernel has written this member of the union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(mtu.cast_unsigned())
    }

    /// How its packets can be stamped (`ETHTOOL_GET_TS_INFO`).
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn stamping_offer(&self) -> io::Result<StampingOffer> {
        const ETHTOOL_GET_TS_INFO: u32 = 0x41;
        let mut info = EthtoolTsInfo { command: ETHTOOL_GET_TS_INFO, ..Default::default() };
        // SAFETY: ETHTOOL_GET_TS_INFO reads and writes one `ethtool_ts_info`.
        unsafe { self.ask_ethtool((&raw mut info).cast()) }?;
        let clock = u32::try_from(info.phc_index).ok();
        Ok(StampingOffer { flags: info.so_timestamping, receive: info.receive_filters, clock })
    }

    /// How the NIC stamps packets now (`SIOCGHWTSTAMP`).
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` when the driver cannot, or does not tell.
    pub fn hardware_stamping(&self) -> io::Result<HardwareStamping> {
        let mut setting = HardwareStamping::default();
        self.hardware_stamping_request(libc::SIOCGHWTSTAMP, &mut setting)?;
        Ok(setting)
    }

    /// Has the NIC stamp packets (`SIOCSHWTSTAMP`); returns what the driver made of it, which may be more.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` when the driver cannot, `ERANGE` when it cannot do this, `EPERM` without CAP_NET_ADMIN.
    pub fn set_hardware_stamping(&self, setting: HardwareStamping) -> io::Result<HardwareStamping> {
        let mut setting = setting;
        self.hardware_stamping_request(libc::SIOCSHWTSTAMP, &mut setting)?;
        Ok(setting)
    }

    /// A switch of the interface that ethtool knows.
    ///
    /// # Errors
    ///
    /// When the driver does not have it.
    pub fn switch(&self, switch: Switch) -> io::Result<bool> {
        let value = self.ethtool_value(switch.commands().0, 0)?;
        Ok(value & switch.bit() != 0)
    }

    /// Turns a switch.
    ///
    /// # Errors
    ///
    /// When the driver cannot, or without CAP_NET_ADMIN.
    pub fn set_switch(&self, switch: Switch, on: bool) -> io::Result<()> {
        let (get, set) = switch.commands();
        let others = match switch {
            Switch::Gro => 0,
            Switch::Lro | Switch::ReceiveVlan => self.ethtool_value(get, 0)? & !switch.bit(),
        };
        self.ethtool_value(set, others | if on { switch.bit() } else { 0 })?;
        match self.switch(switch)? == on {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    fn ethtool_value(&self, command: u32, data: u32) -> io::Result<u32> {
        let mut value = EthtoolValue { command, data };
        // SAFETY: the four commands of `Switch` read and write one `ethtool_value`.
        unsafe { self.ask_ethtool((&raw mut value).cast()) }?;
        Ok(value.data)
    }

    fn hardware_stamping_request(
        &self,
        what: libc::Ioctl,
        setting: &mut HardwareStamping,
    ) -> io::Result<()> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(setting).cast();
        // SAFETY: SIOCGHWTSTAMP and SIOCSHWTSTAMP read and write one `hwtstamp_config` there.
        unsafe { self.ask(what, &mut request) }
    }

    /// # Safety
    ///
    /// `question` points to the structure that its first member, the command, stands for.
    unsafe fn ask_ethtool(&self, question: *mut libc::c_char) -> io::Result<()> {
        let mut request = self.request()?;
        request.ifr_ifru.ifru_data = question;
        // SAFETY: the caller says what the pointer points to.
        unsafe { self.ask(libc::SIOCETHTOOL, &mut request) }
    }

    /// # Safety
    ///
    /// Where `what` takes a pointer in the request, it points to what the kernel will read and write there.
    unsafe fn ask(&self, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        let request = std::ptr::from_mut(request);
        // SAFETY: the kernel reads and writes one `ifreq`, borrowed for the call, and what the caller vouches for.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), what, request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A request about this interface; its name is terminated by the zeros around it.
    fn request(&self) -> io::Result<libc::ifreq> {
        // SAFETY: `ifreq` is numbers and, in a union, a pointer: all zeros are a value of it.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = CString::new(self.name.as_str())?;
        let name = name.as_bytes();
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        Ok(request)
    }
}

/// What changes received packets before a tap sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Generic receive offload: the kernel merges packets.
    Gro,
    /// Large receive offload: the NIC merges packets.
    Lro,
    /// The NIC takes VLAN tags off.
    ReceiveVlan,
}

impl Switch {
    /// What merges packets.
    pub const MERGING: [Switch; 2] = [Switch::Gro, Switch::Lro];
    /// All of them.
    pub const ALL: [Switch; 3] = [Switch::Gro, Switch::Lro, Switch::ReceiveVlan];

    /// As `ethtool -K` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Switch::Gro => "gro",
            Switch::Lro => "lro",
            Switch::ReceiveVlan => "rxvlan",
        }
    }

    /// The ethtool commands that get and set it.
    fn commands(self) -> (u32, u32) {
        match self {
            // ETHTOOL_GGRO, ETHTOOL_SGRO.
            Switch::Gro => (0x2b, 0x2c),
            // ETHTOOL_GFLAGS, ETHTOOL_SFLAGS.
            Switch::Lro | Switch::ReceiveVlan => (0x25, 0x26),
        }
    }

    /// Its place in the value of those commands.
    fn bit(self) -> u32 {
        match self {
            Switch::Gro => 1,
            // ETH_FLAG_LRO.
            Switch::Lro => 1 << 15,
            // ETH_FLAG_RXVLAN.
            Switch::ReceiveVlan => 1 << 8,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_ts_info`.
#[repr(C)]
#[derive(Default)]
struct EthtoolTsInfo {
    command: u32,
    so_timestamping: u32,
    phc_index: i32,
    transmit_types: u32,
    transmit_reserved: [u32; 3],
    receive_filters: u32,
    receive_reserved: [u32; 3],
}

const _: () = assert!(size_of::<EthtoolTsInfo>() == 44);
const _: () = assert!(size_of::<HardwareStamping>() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_up_and_offers_software_stamps_only() {
        let loopback = Interface::find("lo").expect("every namespace has one");
        assert!(loopback.exists() && loopback.is_ethernet().unwrap());
        assert!(loopback.mtu().unwrap() > 0);
        let offer = loopback.stamping_offer().unwrap();
        assert_eq!(offer.flags & libc::SOF_TIMESTAMPING_RX_HARDWARE, 0);
        assert_ne!(offer.flags & libc::SOF_TIMESTAMPING_SOFTWARE, 0);
        assert_eq!((offer.receive, offer.clock), (0, None));
    }

    #[test]
    fn a_driver_without_hardware_stamps_says_so() {
        let loopback = Interface::find("lo").expect("every namespace has one");
        let error = loopback.hardware_stamping().expect_err("loopback has no hardware");
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
    }
}
