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

use std::ffi::{CStr, c_int};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{fmt, fs, io, mem, ptr};

use ipnet::IpNet;
use libxdp_sys::{bpf_map, bpf_object};
use nix::fcntl::{FcntlArg, fcntl};

use super::destinations::{DESTINATIONS_MAX, Destinations};
use super::error::XdpError;
use super::interface::Interface;
use super::options;
use super::settings::{Attach, ENCAPSULATION_BYTES_MAX, check_frame_bytes, mtu_max};

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

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// After the kernel has built an sk_buff.
    Generic,
}

impl Mode {
    /// XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE of linux/if_link.h.
    fn flags(self) -> u32 {
        match self {
            Mode::Native => 1 << 2,
            Mode::Generic => 1 << 1,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
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
    counters: OwnedFd,
    sockets: OwnedFd,
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
        raise_memory_limit();

        let program = Program::load(&interface, role, frame_bytes, queues)?;
        let (link, mode) = match attach {
            Attach::Native => (link(&program, &interface, Mode::Native)?, Mode::Native),
            Attach::Generic => (link(&program, &interface, Mode::Generic)?, Mode::Generic),
            Attach::Auto => link_auto(&program, &interface)?,
        };
        let counters = program.map(&interface, c"counters")?;
        let sockets = program.map(&interface, c"sockets")?;
        let routed = match role {
            Role::Inline => None,
            Role::Routed { .. } => Some(Routed {
                maps: [
                    program.map(&interface, c"ipv4_routed")?,
                    program.map(&interface, c"ipv6_routed")?,
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
        let cpus = possible_cpus()?;
        let read = |reason| sum_of_cpus(&self.counters, reason, cpus);
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
        let socket: RawFd = socket.as_raw_fd();
        // SAFETY: the map has keys and values of four bytes, and the kernel copies both during the
        // call.
        let result = unsafe {
            libxdp_sys::bpf_map_update_elem(
                self.sockets.as_raw_fd(),
                ptr::from_ref(&queue).cast(),
                ptr::from_ref(&socket).cast(),
                0,
            )
        };
        check(result).map(drop)
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

/// Old kernels account maps to the limit of locked memory. Raising it takes CAP_SYS_RESOURCE, and
/// where it matters and fails, the call that needs the memory says so.
fn raise_memory_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%errno, "the limit of locked memory stays as it is");
    }
}

/// Native, or generic where the driver does not do it. An interface that is occupied or forbidden
/// would be so in generic mode too.
fn link_auto(program: &Program, interface: &Interface) -> Result<(OwnedFd, Mode), XdpError> {
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

fn link(program: &Program, interface: &Interface, mode: Mode) -> Result<OwnedFd, XdpError> {
    // SAFETY: the structure is numbers, a pointer that may be null and a union of numbers.
    let mut options: libxdp_sys::bpf_link_create_opts = unsafe { mem::zeroed() };
    options.sz = size_of_val(&options);
    options.flags = mode.flags();
    // SAFETY: the program's descriptor is open while `program` is borrowed; libbpf reads `sz` bytes
    // of the options, which is their size.
    let result = unsafe {
        libxdp_sys::bpf_link_create(
            program.descriptor(),
            interface.index.cast_signed(),
            libxdp_sys::bpf_attach_type_BPF_XDP,
            ptr::from_ref(&options),
        )
    };
    own(result).map(closed_first).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            XdpError::Occupied { interface: interface.name.clone(), program: occupant(interface) }
        }
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

/// What is on the interface, in words: " (native program 42)"; nothing where the kernel does not
/// tell.
fn occupant(interface: &Interface) -> String {
    // SAFETY: the structure is numbers.
    let mut found: libxdp_sys::bpf_xdp_query_opts = unsafe { mem::zeroed() };
    found.sz = size_of_val(&found);
    // SAFETY: libbpf writes at most `sz` bytes to the structure, which is its size.
    let result = unsafe {
        libxdp_sys::bpf_xdp_query(interface.index.cast_signed(), 0, ptr::from_mut(&mut found))
    };
    if result != 0 {
        return String::new();
    }
    if found.skb_prog_id != 0 {
        format!(" (generic, program {})", found.skb_prog_id)
    } else {
        format!(" (native, program {})", found.drv_prog_id.max(found.hw_prog_id))
    }
}

/// Constants of a program: `struct port` of `kernel.bpf.h`.
#[repr(C)]
struct Constants {
    address: [u8; 6],
    large_frames: u8,
    encapsulates: u8,
}

const _: () = assert!(size_of::<Constants>() == 8);

/// The loaded program and its maps, while libbpf holds them. The kernel keeps what a link or a
/// duplicated descriptor still refers to.
struct Program {
    object: ptr::NonNull<bpf_object>,
}

impl Program {
    fn load(
        interface: &Interface,
        role: Role,
        frame_bytes: u32,
        queues: u32,
    ) -> Result<Program, XdpError> {
        let bytes = role.object();
        let fail = |operation: &str, cause| XdpError::kernel(&interface.name, operation, cause);
        // SAFETY: libbpf copies the object during the call; null asks for default options.
        let object = unsafe {
            libxdp_sys::bpf_object__open_mem(bytes.as_ptr().cast(), bytes.len(), ptr::null())
        };
        let object = ptr::NonNull::new(object)
            .ok_or_else(|| fail("reading the XDP program", io::Error::last_os_error()))?;
        let program = Program { object };

        let constants = Constants {
            address: interface.address,
            large_frames: u8::from(frame_bytes == 4096),
            encapsulates: u8::from(role.encapsulates()),
        };
        program
            .set_constants(&constants)
            .map_err(|cause| fail("setting the XDP program's constants", cause))?;
        program
            .set_entries(c"sockets", queues)
            .map_err(|cause| fail("sizing the map of sockets", cause))?;
        // SAFETY: the object is open and has not been loaded.
        let result = unsafe { libxdp_sys::bpf_object__load(program.object.as_ptr()) };
        check(result).map_err(|cause| fail("loading the XDP program", cause))?;
        Ok(program)
    }

    fn set_constants(&self, constants: &Constants) -> io::Result<()> {
        let map = self.find(c".rodata")?;
        // SAFETY: the map belongs to the object, not yet loaded; libbpf checks the size and copies.
        let result = unsafe {
            libxdp_sys::bpf_map__set_initial_value(
                map,
                ptr::from_ref(constants).cast(),
                size_of::<Constants>(),
            )
        };
        check(result).map(drop)
    }

    fn set_entries(&self, name: &CStr, entries: u32) -> io::Result<()> {
        let map = self.find(name)?;
        // SAFETY: the map belongs to the object, which is not yet loaded.
        let result = unsafe { libxdp_sys::bpf_map__set_max_entries(map, entries) };
        check(result).map(drop)
    }

    /// A map's own descriptor, which stays open when the object is closed.
    fn map(&self, interface: &Interface, name: &CStr) -> Result<OwnedFd, XdpError> {
        let open = || {
            let map = self.find(name)?;
            // SAFETY: the map belongs to the object, which is open.
            let descriptor = unsafe { libxdp_sys::bpf_map__fd(map) };
            check(descriptor)?;
            // SAFETY: libbpf keeps the descriptor open until the object is closed, after this call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            borrowed.try_clone_to_owned()
        };
        open().map_err(|cause| XdpError::kernel(&interface.name, "opening the XDP maps", cause))
    }

    /// The program's descriptor, open as long as `self`.
    fn descriptor(&self) -> c_int {
        // SAFETY: the object is open and the name ends in a zero.
        let program = unsafe {
            libxdp_sys::bpf_object__find_program_by_name(
                self.object.as_ptr(),
                c"lanesplit".as_ptr(),
            )
        };
        // SAFETY: libbpf takes null and answers with an invalid descriptor, which the kernel
        // refuses.
        unsafe { libxdp_sys::bpf_program__fd(program) }
    }

    fn find(&self, name: &CStr) -> io::Result<*mut bpf_map> {
        // SAFETY: the object is open and the name ends in a zero.
        let map = unsafe {
            libxdp_sys::bpf_object__find_map_by_name(self.object.as_ptr(), name.as_ptr())
        };
        if map.is_null() { Err(io::Error::from_raw_os_error(libc::ENOENT)) } else { Ok(map) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: `load` opened the object, and nothing of libbpf's is used after this.
        unsafe { libxdp_sys::bpf_object__close(self.object.as_ptr()) };
    }
}

/// A counter of all CPUs together.
fn sum_of_cpus(counters: &OwnedFd, reason: u32, cpus: usize) -> io::Result<u64> {
    let mut values = vec![0_u64; cpus];
    // SAFETY: the kernel reads a key of four bytes and writes eight bytes for each possible CPU,
    // for which `values` has room.
    let result = unsafe {
        libxdp_sys::bpf_map_lookup_elem(
            counters.as_raw_fd(),
            ptr::from_ref(&reason).cast(),
            values.as_mut_ptr().cast(),
        )
    };
    check(result)?;
    Ok(values.iter().sum())
}

/// CPUs that the kernel has room for in every per-CPU value.
fn possible_cpus() -> io::Result<usize> {
    const PATH: &str = "/sys/devices/system/cpu/possible";
    let list = fs::read_to_string(PATH)?;
    count_cpus(&list).ok_or_else(|| io::Error::other(format!("{PATH} says {list:?}")))
}

/// One more than the highest number of a list like "0-3,8-11".
fn count_cpus(list: &str) -> Option<usize> {
    let highest = list.trim().rsplit([',', '-']).next()?;
    Some(highest.parse::<usize>().ok()? + 1)
}

/// libbpf's convention: negative is an errno.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn own(result: c_int) -> io::Result<OwnedFd> {
    let descriptor = check(result)?;
    // SAFETY: libbpf has just opened the descriptor and given it away.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_up_to_the_highest() {
        assert_eq!(count_cpus("0\n"), Some(1));
        assert_eq!(count_cpus("0-3\n"), Some(4));
        assert_eq!(count_cpus("0-3,8-11\n"), Some(12));
        assert_eq!(count_cpus("\n"), None);
    }

    #[test]
    fn this_machine_has_a_cpu() {
        assert!(possible_cpus().expect("sysfs is mounted") >= 1);
    }
}
