//! The XDP program on an interface.
//!
//! The program (`program.bpf.c`) leaves the kernel what is the kernel's and sends the rest to the
//! sockets in its map. It is loaded once per interface, with that interface's address in its
//! constants.
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
//! A fourth, `promiscuous`, is a packet socket that keeps the interface receiving everything, if
//! asked to.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{fmt, fs, io, mem, ptr};

use libxdp_sys::{bpf_map, bpf_object};

use super::error::XdpError;
use super::interface::Interface;
use super::options;
use super::settings::{Attach, check_frame_bytes, mtu_max};

/// Compiled by the build script.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/program.bpf.o"));

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
    /// Addressed to the port's own MAC address.
    pub own_address: u64,
    /// Longer than a frame of packet memory can hold.
    pub oversize: u64,
    /// Received on a queue without a worker.
    pub no_socket: u64,
}

impl std::ops::AddAssign for KernelCounters {
    fn add_assign(&mut self, other: KernelCounters) {
        let KernelCounters { own_address, oversize, no_socket } = other;
        self.own_address += own_address;
        self.oversize += oversize;
        self.no_socket += no_socket;
    }
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
    _link: OwnedFd,
    promiscuous: Option<OwnedFd>,
}

impl Attachment {
    /// Puts the program on `interface`, to serve its first `queues` queues with frames of
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
        check_frame_bytes(frame_bytes)?;
        let interface = Interface::find(interface)?;
        check_mtu(&interface, frame_bytes)?;
        keep_vlan_tags(&interface);
        raise_memory_limit();

        let program = Program::load(&interface, frame_bytes, queues)?;
        let (link, mode) = match attach {
            Attach::Native => (link(&program, &interface, Mode::Native)?, Mode::Native),
            Attach::Generic => (link(&program, &interface, Mode::Generic)?, Mode::Generic),
            Attach::Auto => link_auto(&program, &interface)?,
        };
        let counters = program.map(&interface, c"counters")?;
        let sockets = program.map(&interface, c"sockets")?;
        let attachment = Attachment {
            interface,
            mode,
            frame_bytes,
            queues,
            counters,
            sockets,
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
        Ok(KernelCounters { own_address: read(0)?, oversize: read(1)?, no_socket: read(2)? })
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

fn check_mtu(interface: &Interface, frame_bytes: u32) -> Result<(), XdpError> {
    let mtu_max = mtu_max(frame_bytes);
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
    own(result).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            XdpError::Occupied { interface: interface.name.clone(), program: occupant(interface) }
        }
        _ => {
            let operation = format!("attaching the XDP program ({mode})");
            XdpError::kernel(&interface.name, operation, cause)
        }
    })
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

/// Constants of the program: `struct port` of `program.bpf.c`.
#[repr(C)]
struct Constants {
    address: [u8; 6],
    large_frames: u16,
}

const _: () = assert!(size_of::<Constants>() == 8);

/// The loaded program and its maps, while libbpf holds them. The kernel keeps what a link or a
/// duplicated descriptor still refers to.
struct Program {
    object: ptr::NonNull<bpf_object>,
}

impl Program {
    fn load(interface: &Interface, frame_bytes: u32, queues: u32) -> Result<Program, XdpError> {
        let fail = |operation: &str, cause| XdpError::kernel(&interface.name, operation, cause);
        // SAFETY: libbpf copies the object during the call; null asks for default options.
        let object = unsafe {
            libxdp_sys::bpf_object__open_mem(OBJECT.as_ptr().cast(), OBJECT.len(), ptr::null())
        };
        let object = ptr::NonNull::new(object)
            .ok_or_else(|| fail("reading the XDP program", io::Error::last_os_error()))?;
        let program = Program { object };

        let large_frames = u16::from(frame_bytes == 4096);
        let constants = Constants { address: interface.address, large_frames };
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
