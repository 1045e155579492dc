//! A BPF object: XDP programs and their maps, opened, prepared, loaded and linked by libbpf.
//!
//! **Invariant.** What is made of it outlives it: a link, and every map that was asked for, have descriptors of
//! their own, closed on exec. A program is attached exactly as long as its link's descriptor is open.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::{fmt, fs, io, mem, ptr};

use libxdp_sys::{bpf_map, bpf_object, bpf_program};

/// `BPF_F_XDP_DEV_BOUND_ONLY` of linux/bpf.h, since Linux 6.3: the program runs on the CPU, and may ask one
/// driver about its packets.
const DEVICE_BOUND: u32 = 1 << 6;

/// Where a program runs.
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

/// Programs and their maps while libbpf holds them. The kernel keeps what a link or a duplicated
/// descriptor still refers to.
#[derive(Debug)]
pub struct Object {
    object: ptr::NonNull<bpf_object>,
}

// SAFETY: libbpf keeps nothing of an object with the thread that opened it, and this value alone has it.
unsafe impl Send for Object {}

impl Object {
    /// Reads a compiled object.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn open(bytes: &[u8]) -> io::Result<Object> {
        // SAFETY: libbpf copies the object during the call; null asks for default options.
        let object = unsafe {
            libxdp_sys::bpf_object__open_mem(bytes.as_ptr().cast(), bytes.len(), ptr::null())
        };
        let object = ptr::NonNull::new(object).ok_or_else(io::Error::last_os_error)?;
        Ok(Object { object })
    }

    /// Writes the programs' constants, before [`Object::load`].
    ///
    /// # Errors
    ///
    /// When there are more or fewer bytes of them.
    pub fn set_constants(&self, constants: &[u8]) -> io::Result<()> {
        let map = self.find(c".rodata")?;
        // SAFETY: the map belongs to the object, not yet loaded; libbpf checks the size and copies.
        let result = unsafe {
            libxdp_sys::bpf_map__set_initial_value(map, constants.as_ptr().cast(), constants.len())
        };
        check(result).map(drop)
    }

    /// Sizes a map, before [`Object::load`].
    ///
    /// # Errors
    ///
    /// When there is no such map.
    pub fn set_entries(&self, name: &CStr, entries: u32) -> io::Result<()> {
        let map = self.find(name)?;
        // SAFETY: the map belongs to the object, which is not yet loaded.
        let result = unsafe { libxdp_sys::bpf_map__set_max_entries(map, entries) };
        check(result).map(drop)
    }

    /// [`Object::load`] leaves a program out.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn leave_out(&self, program: &CStr) -> io::Result<()> {
        let program = self.program(program)?;
        // SAFETY: the program belongs to the object, which is not yet loaded.
        let result = unsafe { libxdp_sys::bpf_program__set_autoload(program, false) };
        check(result).map(drop)
    }

    /// [`Object::load`] binds a program to an interface, so that it may call the driver's metadata functions
    /// (`bpf_xdp_metadata_*`). It can be attached to that interface only, in native mode only.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn bind_to_device(&self, program: &CStr, interface_index: u32) -> io::Result<()> {
        let program = self.program(program)?;
        // SAFETY: the program belongs to the object, which is not yet loaded.
        unsafe { libxdp_sys::bpf_program__set_ifindex(program, interface_index) };
        // SAFETY: the same.
        let result = unsafe { libxdp_sys::bpf_program__set_flags(program, DEVICE_BOUND) };
        check(result).map(drop)
    }

    /// Gives everything to the kernel, whose verifier may refuse it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn load(&self) -> io::Result<()> {
        // SAFETY: the object is open; one that is loaded already is refused.
        let result = unsafe { libxdp_sys::bpf_object__load(self.object.as_ptr()) };
        check(result).map(drop)
    }

    /// A map of sockets by queue, which stays open when the object is closed.
    ///
    /// # Errors
    ///
    /// When there is no such map, it is another kind of map, or it is not loaded.
    pub fn sockets(&self, name: &CStr) -> io::Result<SocketMap> {
        self.of_kind(name, libxdp_sys::bpf_map_type_BPF_MAP_TYPE_XSKMAP, 4)?;
        self.map(name).map(SocketMap)
    }

    /// Counters by CPU, which stay open when the object is closed.
    ///
    /// # Errors
    ///
    /// When there is no such map, it is another kind of map, or it is not loaded.
    pub fn counters(&self, name: &CStr) -> io::Result<CpuCounters> {
        self.of_kind(name, libxdp_sys::bpf_map_type_BPF_MAP_TYPE_PERCPU_ARRAY, 8)?;
        self.map(name).map(CpuCounters)
    }

    /// Whether a map is of that type, with keys of four bytes and values of so many.
    fn of_kind(
        &self,
        name: &CStr,
        kind: libxdp_sys::bpf_map_type,
        value_bytes: u32,
    ) -> io::Result<()> {
        let map = self.find(name)?;
        // SAFETY: the map belongs to the object, which is open.
        let found = unsafe { libxdp_sys::bpf_map__type(map) };
        // SAFETY: the same.
        let keys = unsafe { libxdp_sys::bpf_map__key_size(map) };
        // SAFETY: the same.
        let values = unsafe { libxdp_sys::bpf_map__value_size(map) };
        if (found, keys, values) == (kind, 4, value_bytes) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// A map's own descriptor, which stays open when the object is closed.
    ///
    /// # Errors
    ///
    /// When there is no such map, or it is not loaded.
    pub(super) fn map(&self, name: &CStr) -> io::Result<OwnedFd> {
        let map = self.find(name)?;
        // SAFETY: the map belongs to the object, which is open.
        let descriptor = unsafe { libxdp_sys::bpf_map__fd(map) };
        check(descriptor)?;
        // SAFETY: libbpf keeps the descriptor open until the object is closed, after this call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        borrowed.try_clone_to_owned()
    }

    /// Attaches a program to an interface, as long as the link is open.
    ///
    /// # Errors
    ///
    /// `EBUSY` or `EEXIST` when another program is there, or what the driver says.
    pub fn link(&self, program: &CStr, interface_index: u32, mode: Mode) -> io::Result<OwnedFd> {
        let program = self.program(program)?;
        // SAFETY: the program belongs to the object; one that is not loaded has an invalid descriptor, which
        // the kernel refuses.
        let descriptor = unsafe { libxdp_sys::bpf_program__fd(program) };
        // SAFETY: the structure is numbers, a pointer that may be null and a union of numbers.
        let mut options: libxdp_sys::bpf_link_create_opts = unsafe { mem::zeroed() };
        options.sz = size_of_val(&options);
        options.flags = mode.flags();
        // SAFETY: the program's descriptor is open while `self` is borrowed; libbpf reads `sz` bytes
        // of the options, which is their size.
        let result = unsafe {
            libxdp_sys::bpf_link_create(
                descriptor,
                interface_index.cast_signed(),
                libxdp_sys::bpf_attach_type_BPF_XDP,
                ptr::from_ref(&options),
            )
        };
        let descriptor = check(result)?;
        // SAFETY: libbpf has just opened the descriptor and given it away.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    fn program(&self, name: &CStr) -> io::Result<*mut bpf_program> {
        // SAFETY: the object is open and the name ends in a zero.
        let program = unsafe {
            libxdp_sys::bpf_object__find_program_by_name(self.object.as_ptr(), name.as_ptr())
        };
        found(program)
    }

    fn find(&self, name: &CStr) -> io::Result<*mut bpf_map> {
        // SAFETY: the object is open and the name ends in a zero.
        let map = unsafe {
            libxdp_sys::bpf_object__find_map_by_name(self.object.as_ptr(), name.as_ptr())
        };
        found(map)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: `open` opened the object, and nothing of libbpf's is used after this.
        unsafe { libxdp_sys::bpf_object__close(self.object.as_ptr()) };
    }
}

/// What is on the interface, in words: " (native, program 42)"; nothing where the kernel does not
/// tell.
pub fn occupant(interface_index: u32) -> String {
    // SAFETY: the structure is numbers.
    let mut found: libxdp_sys::bpf_xdp_query_opts = unsafe { mem::zeroed() };
    found.sz = size_of_val(&found);
    // SAFETY: libbpf writes at most `sz` bytes to the structure, which is its size.
    let result = unsafe {
        libxdp_sys::bpf_xdp_query(interface_index.cast_signed(), 0, ptr::from_mut(&mut found))
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

/// A map of sockets by queue (XSKMAP), with a descriptor of its own. Its keys and values have four bytes.
#[derive(Debug)]
pub struct SocketMap(OwnedFd);

impl SocketMap {
    /// What `queue` receives is sent to `socket`. The kernel removes the entry when the socket is closed.
    ///
    /// # Errors
    ///
    /// When the map has no such entry.
    pub fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket: RawFd = socket.as_raw_fd();
        // SAFETY: keys and values have four bytes, as `Object::sockets` has seen, and the kernel copies both
        // during the call.
        let result = unsafe {
            libxdp_sys::bpf_map_update_elem(
                self.0.as_raw_fd(),
                ptr::from_ref(&queue).cast(),
                ptr::from_ref(&socket).cast(),
                0,
            )
        };
        check(result).map(drop)
    }
}

/// Counters of each CPU, with a descriptor of its own. Its keys have four bytes, its values eight.
#[derive(Debug)]
pub struct CpuCounters(OwnedFd);

impl CpuCounters {
    /// A counter, of all CPUs together.
    ///
    /// # Errors
    ///
    /// When the kernel does not let the map be read.
    pub fn sum(&self, counter: u32) -> io::Result<u64> {
        let mut values = vec![0_u64; possible_cpus()?];
        // SAFETY: the kernel reads a key of four bytes and writes eight bytes for each possible CPU, as
        // `Object::counters` has seen; `values` has room for them.
        let result = unsafe {
            libxdp_sys::bpf_map_lookup_elem(
                self.0.as_raw_fd(),
                ptr::from_ref(&counter).cast(),
                values.as_mut_ptr().cast(),
            )
        };
        check(result)?;
        Ok(values.iter().sum())
    }
}

/// Old kernels account maps to the limit of locked memory. Raising it takes CAP_SYS_RESOURCE, and
/// where it matters and fails, the call that needs the memory says so.
pub fn raise_memory_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%errno, "the limit of locked memory stays as it is");
    }
}

/// CPUs that the kernel has room for in every per-CPU value.
fn possible_cpus() -> io::Result<usize> {
    const PATH: &str = "/sys/devices/system/cpu/possible";
    // It is what the kernel was started with.
    static FOUND: OnceLock<usize> = OnceLock::new();
    if let Some(&cpus) = FOUND.get() {
        return Ok(cpus);
    }
    let list = fs::read_to_string(PATH)?;
    let cpus =
        count_cpus(&list).ok_or_else(|| io::Error::other(format!("{PATH} says {list:?}")))?;
    Ok(*FOUND.get_or_init(|| cpus))
}

/// One more than the highest number of a list like "0-3,8-11".
fn count_cpus(list: &str) -> Option<usize> {
    let highest = list.trim().rsplit([',', '-']).next()?;
    Some(highest.parse::<usize>().ok()? + 1)
}

/// libbpf's convention: negative is an errno.
pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// What libbpf looked for.
fn found<T>(pointer: *mut T) -> io::Result<*mut T> {
    if pointer.is_null() { Err(io::Error::from_raw_os_error(libc::ENOENT)) } else { Ok(pointer) }
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

    #[test]
    fn bytes_that_are_no_object_are_refused() {
        assert!(Object::open(&[0; 64]).is_err());
    }
}
