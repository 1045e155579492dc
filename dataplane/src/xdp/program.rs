//! The XDP program on an interface.
//!
//! The program (`program.bpf.c` inline, `routed.bpf.c` routed) leaves the kernel what is the kernel's
//! and sends the rest to the sockets in its map. It is loaded once per interface, with that
//! interface's address in its constants.
//!
//! **Invariant.** The program is attached exactly as long as its link's descriptor is open, and an
//! [`Attachment`] holds the only one, closed on exec: dropping it, or the death of the process by
//! whatever signal, detaches the program.
//!
//! | descriptor | of                                | read by    | written by         |
//! |------------|-----------------------------------|------------|--------------------|
//! | `link`     | the program on the interface      | nobody     | `attach`           |
//! | `sockets`  | sockets by queue (XSKMAP)         | program    | `register`, `open` |
//! | `counters` | frames left to the kernel, by CPU | `counters` | program            |
//!
//! In routed mode two more, `routed`, are the destinations by IP version (LPM_TRIE), read by the
//! program and written by `set_destinations`. Another, `promiscuous`, is a packet socket that keeps the interface receiving everything, if
//! asked to.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

use ipnet::IpNet;
use nix::fcntl::{FcntlArg, fcntl};

use super::destinations::{DESTINATIONS_MAX, Destinations};
use super::error::XdpError;
use super::interface::Interface;
use super::object::{self, CpuCounters, Mode, Object, SocketMap, check};
use super::options;
use super::settings::{Attach, ENCAPSULATION_BYTES_MAX, check_frame_bytes, mtu_max};

/// The name of each of them.
const PROGRAM: &CStr = c"lanesplit";

/// Compiled by the build script.
static INLINE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/program.bpf.o"));
/// The same.
static ROUTED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/routed.bpf.o"));

/// More descriptors than a gateway has, and less than the 1024 that a process may have by default.
const LINK_DESCRIPTOR_MIN: RawFd = 768;

/// What a port is for: which program it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A bump in the wire: all but the port's own address is the worker's.
    Inline,
    /// A router's port: [`Destinations`] at its own MAC address are the worker's.
    Routed {
        /// Whether packets that come in here may be encapsulated, and so need room to grow.
        encapsulates: bool,
    },
}

impl Role {
    fn object(self) -> &'static [u8] {
        match self {
            Role::Inline => INLINE,
            Role::Routed { .. } => ROUTED,
        }
    }

    fn encapsulates(self) -> bool {
        self == Role::Routed { encapsulates: true }
    }

    /// Bytes of a frame of packet memory that a received packet must leave free, to grow into.
    pub fn room_bytes(self) -> u32 {
        if self.encapsulates() { ENCAPSULATION_BYTES_MAX } else { 0 }
    }
}

/// Frames that the program left to the kernel, by reason, since it was attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KernelCounters {
    /// Inline: addressed to the port's own MAC address. Routed: to an address of this machine, and not a
    /// packet of a tunnel.
    pub own_address: u64,
    /// Longer than a frame of packet memory can hold; routed, with the headers that may be added.
    pub oversize: u64,
    /// Received on a queue without a worker.
    pub no_socket: u64,
    /// Routed: not addressed to the port's own MAC address.
    pub other_link: u64,
    /// Routed: neither IPv4 nor IPv6, behind a VLAN tag, or shorter than an IP header.
    pub not_ip: u64,
    /// Routed: to a destination that the gateway does not serve.
    pub other_destination: u64,
    /// Routed: fragments of a tunnel's packet.
    pub fragment: u64,
}

impl std::ops::AddAssign for KernelCounters {
    fn add_assign(&mut self, other: KernelCounters) {
        let KernelCounters {
            own_address,
            oversize,
            no_socket,
            other_link,
            not_ip,
            other_destination,
            fragment,
        } = other;
        self.own_address += own_address;
        self.oversize += oversize;
        self.no_socket += no_socket;
        self.other_link += other_link;
        self.not_ip += not_ip;
        self.other_destination += other_destination;
        self.fragment += fragment;
    }
}

/// The maps of destinations, IPv4 and IPv6, and what is in them.
#[derive(Debug)]
struct Routed {
    maps: [OwnedFd; 2],
    destinations: Destinations,
}

/// The XDP program on one interface, until this is dropped or the process dies.
#[derive(Debug)]
pub struct Attachment {
    interface: Interface,
    mode: Mode,
    frame_bytes: u32,
    queues: u32,
    counters: CpuCounters,
    sockets: SocketMap,
    routed: Option<Routed>,
    _link: OwnedFd,
    promiscuous: Option<OwnedFd>,
}

impl Attachment {
    /// Puts the program of inline mode on `interface`, to serve its first `queues` queues with frames of
    /// `frame_bytes` bytes. Until [`open`](super::open) adds sockets, it leaves every packet to the
    /// kernel.
    ///
    /// The interface's MAC address is read here: attach again when it has changed.
    ///
    /// # Errors
    ///
    /// When there is no such interface, its MTU does not fit the frames, another XDP program is on
    /// it, or the kernel refuses.
    pub fn attach(
        interface: &str,
        attach: Attach,
        frame_bytes: u32,
        queues: u32,
    ) -> Result<Attachment, XdpError> {
        Attachment::attach_as(Role::Inline, interface, attach, frame_bytes, queues)
    }

    /// The same with the program of any role. One of routed mode begins without destinations, and leaves
    /// everything to the kernel until [`Attachment::set_destinations`] names some.
    ///
    /// # Errors
    ///
    /// As [`Attachment::attach`].
    pub fn attach_as(
        role: Role,
        interface: &str,
        attach: Attach,
        frame_bytes: u32,
        queues: u32,
    ) -> Result<Attachment, XdpError> {
        check_frame_bytes(frame_bytes)?;
        let interface = Interface::find(interface)?;
        check_mtu(&interface, frame_bytes, role)?;
        keep_vlan_tags(&interface);
        object::raise_memory_limit();

        let program = load(&interface, role, frame_bytes, queues)?;
        let (link, mode) = match attach {
            Attach::Native => (link(&program, &interface, Mode::Native)?, Mode::Native),
            Attach::Generic => (link(&program, &interface, Mode::Generic)?, Mode::Generic),
            Attach::Auto => link_auto(&program, &interface)?,
        };
        let fail = |cause| XdpError::kernel(&interface.name, "opening the XDP maps", cause);
        let counters = program.counters(c"counters").map_err(fail)?;
        let sockets = program.sockets(c"sockets").map_err(fail)?;
        let routed = match role {
            Role::Inline => None,
            Role::Routed { .. } => Some(Routed {
                maps: [
                    program.map(c"ipv4_routed").map_err(fail)?,
                    program.map(c"ipv6_routed").map_err(fail)?,
                ],
                destinations: Destinations::default(),
            }),
        };
        let attachment = Attachment {
            interface,
            mode,
            frame_bytes,
            queues,
            counters,
            sockets,
            routed,
            _link: link,
            promiscuous: None,
        };
        tracing::info!(interface = attachment.interface(), %mode, queues, "XDP program attached");
        Ok(attachment)
    }

    /// Has the interface receive frames to any address, as a bump in the wire must, until this is
    /// dropped. Otherwise a NIC takes only what is addressed to it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn receive_all(&mut self) -> Result<(), XdpError> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let open = || {
            // Protocol 0: the socket itself receives nothing.
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            options::receive_all(socket.as_fd(), self.interface.index)?;
            Ok(socket)
        };
        let socket = open().map_err(|cause: io::Error| {
            XdpError::kernel(&self.interface.name, "making it promiscuous", cause)
        })?;
        self.promiscuous = Some(socket);
        Ok(())
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface.name
    }

    /// The interface's MAC address.
    pub fn address(&self) -> [u8; 6] {
        self.interface.address
    }

    /// Where the program runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Bytes of a frame of packet memory.
    pub fn frame_bytes(&self) -> u32 {
        self.frame_bytes
    }

    /// Queues that can have a socket.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Frames that the program left to the kernel, of all CPUs together.
    ///
    /// # Errors
    ///
    /// When the kernel does not let the map be read.
    pub fn counters(&self) -> io::Result<KernelCounters> {
        let read = |reason| self.counters.sum(reason);
        Ok(KernelCounters {
            own_address: read(0)?,
            oversize: read(1)?,
            no_socket: read(2)?,
            other_link: read(3)?,
            not_ip: read(4)?,
            other_destination: read(5)?,
            fragment: read(6)?,
        })
    }

    /// From now on the program takes these destinations from the kernel, and no others. Only what is different
    /// from before is written, one entry after the other, so nothing that stays is ever missing.
    ///
    /// # Errors
    ///
    /// When there are too many, or the kernel refuses; what was written until then is known, and the next call
    /// goes on from there.
    ///
    /// # Panics
    ///
    /// On a port of inline mode.
    pub fn set_destinations(&mut self, wanted: &Destinations) -> Result<(), XdpError> {
        let routed = self.routed.as_mut().expect("a port of routed mode");
        for is_ipv4 in [true, false] {
            let count = wanted.count(is_ipv4);
            if count > DESTINATIONS_MAX {
                let interface = self.interface.name.clone();
                return Err(XdpError::Destinations { interface, count });
            }
        }
        let name = &self.interface.name;
        let fail =
            |cause| XdpError::kernel(name, "writing the destinations of the XDP program", cause);
        // What goes makes room for what comes.
        let (written, removed) = wanted.changes_since(&routed.destinations);
        for prefix in removed {
            routed.remove(prefix).map_err(fail)?;
            routed.destinations.note(prefix, None);
        }
        for (prefix, uses) in written {
            routed.write(prefix, uses).map_err(fail)?;
            routed.destinations.note(prefix, Some(uses));
        }
        Ok(())
    }

    /// From now on, what `queue` receives goes to `socket`. The kernel removes the entry when the
    /// socket is closed.
    pub(super) fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.register(queue, socket)
    }
}

impl Routed {
    fn write(&self, prefix: IpNet, uses: u32) -> io::Result<()> {
        let (map, key) = self.place(prefix);
        // SAFETY: keys of the map have as many bytes as `Key` has for this IP version, values four, and
        // the kernel copies both during the call.
        let result = unsafe {
            libxdp_sys::bpf_map_update_elem(
                map.as_raw_fd(),
                ptr::from_ref(&key).cast(),
                ptr::from_ref(&uses).cast(),
                0,
            )
        };
        check(result).map(drop)
    }

    /// That there is no such entry is no error: it may have been removed before something failed.
    fn remove(&self, prefix: IpNet) -> io::Result<()> {
        let (map, key) = self.place(prefix);
        // SAFETY: as in `write`; there is no value.
        let result =
            unsafe { libxdp_sys::bpf_map_delete_elem(map.as_raw_fd(), ptr::from_ref(&key).cast()) };
        match check(result) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map(drop),
        }
    }

    fn place(&self, prefix: IpNet) -> (&OwnedFd, Key) {
        let prefix_bits = prefix.prefix_len().into();
        let mut address = [0; 16];
        match prefix.network() {
            IpAddr::V4(network) => address[..4].copy_from_slice(&network.octets()),
            IpAddr::V6(network) => address = network.octets(),
        }
        (&self.maps[usize::from(prefix.addr().is_ipv6())], Key { prefix_bits, address })
    }
}

/// `struct ipv4_key` (its first eight bytes) and `struct ipv6_key` of `routed.bpf.c`.
#[repr(C)]
struct Key {
    prefix_bits: u32,
    address: [u8; 16],
}

const _: () = assert!(size_of::<Key>() == 20);

fn check_mtu(interface: &Interface, frame_bytes: u32, role: Role) -> Result<(), XdpError> {
    let mtu_max = mtu_max(frame_bytes) - role.room_bytes();
    if interface.mtu <= mtu_max {
        return Ok(());
    }
    Err(XdpError::Mtu {
        interface: interface.name.clone(),
        mtu: interface.mtu,
        frame_bytes,
        mtu_max,
        larger: if frame_bytes < 4096 { " or set frame_bytes = 4096" } else { "" },
    })
}

/// A tagged frame must not be forwarded without its tags. The offload stays off when the program is gone: a
/// kernel that finds tags in frames handles them as well.
fn keep_vlan_tags(interface: &Interface) {
    let name = &interface.name;
    match interface.keep_vlan_tags() {
        Ok(false) => {}
        Ok(true) => tracing::info!(interface = name, "VLAN offload (rxvlan) turned off"),
        Err(cause) => tracing::warn!(
            interface = name,
            %cause,
            "it strips VLAN tags and cannot be told otherwise (`ethtool -K {name} rxvlan off`): tagged \
             frames would be forwarded without their tags, so there must be none"
        ),
    }
}

/// Native, or generic where the driver does not do it. An interface that is occupied or forbidden
/// would be so in generic mode too.
fn link_auto(program: &Object, interface: &Interface) -> Result<(OwnedFd, Mode), XdpError> {
    let refusal = match link(program, interface, Mode::Native) {
        Ok(link) => return Ok((link, Mode::Native)),
        Err(refusal) => refusal,
    };
    let hopeless = matches!(refusal.errno(), None | Some(libc::EPERM | libc::EACCES));
    if hopeless {
        return Err(refusal);
    }
    tracing::warn!(
        interface = interface.name,
        reason = refusal.without_remedy(),
        "native XDP is not possible here: falling back to generic XDP, which is slower"
    );
    Ok((link(program, interface, Mode::Generic)?, Mode::Generic))
}

fn link(program: &Object, interface: &Interface, mode: Mode) -> Result<OwnedFd, XdpError> {
    let link = program.link(PROGRAM, interface.index, mode).map(closed_first);
    link.map_err(|cause| match cause.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => XdpError::Occupied {
            interface: interface.name.clone(),
            program: object::occupant(interface.index),
        },
        _ => {
            let operation = format!("attaching the XDP program ({mode})");
            XdpError::kernel(&interface.name, operation, cause)
        }
    })
}

/// The same with a number above all others. Of a process that dies the kernel closes the highest descriptor first, and
/// a socket of AF_XDP takes it milliseconds: with the links last, traffic would wait for every socket of every queue.
fn closed_first(link: OwnedFd) -> OwnedFd {
    // Where the process may not have as many, the number stays.
    match fcntl(&link, FcntlArg::F_DUPFD_CLOEXEC(LINK_DESCRIPTOR_MIN)) {
        // SAFETY: the kernel has just opened the descriptor, for this call alone.
        Ok(descriptor) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        Err(_) => link,
    }
}

fn load(
    interface: &Interface,
    role: Role,
    frame_bytes: u32,
    queues: u32,
) -> Result<Object, XdpError> {
    let fail =
        |operation: &'static str| move |cause| XdpError::kernel(&interface.name, operation, cause);
    let object = Object::open(role.object()).map_err(fail("reading the XDP program"))?;
    object
        .set_constants(&constants(interface, role, frame_bytes))
        .map_err(fail("setting the XDP program's constants"))?;
    object.set_entries(c"sockets", queues).map_err(fail("sizing the map of sockets"))?;
    object.load().map_err(fail("loading the XDP program"))?;
    Ok(object)
}

/// Constants of a program: `struct port` of `kernel.bpf.h`.
fn constants(interface: &Interface, role: Role, frame_bytes: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&interface.address);
    bytes[6] = u8::from(frame_bytes == 4096);
    bytes[7] = u8::from(role.encapsulates());
    bytes
}
