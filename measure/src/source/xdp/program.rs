//! The XDP program of a tap (`tap.bpf.c`) on its interface.
//!
//! Bound to the interface it can ask the driver for the NIC's stamp. Where the kernel does not load it so, or software
//! stamps are wanted, it is the plain one, which does not ask. Both run in the driver, or not at all: behind it a program
//! sees a packet no sooner than a packet socket does.
//!
//! Invariant: attached exactly as long as [`Program::attach`] has been called and [`Program::detach`] has not, and no
//! longer than the process lives, whatever ends it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use dataplane::xdp::object::{self, CpuCounters, Mode, Object, SocketMap};

/// Compiled by the build script.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tap.bpf.o"));

const BOUND: &CStr = c"tap_bound";
const PLAIN: &CStr = c"tap_plain";

/// `enum counter` of the program.
const FRAMES: u32 = 0;
const NO_SOCKET: u32 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Program {
    object: Object,
    interface: u32,
    name: &'static CStr,
    /// Why it does not ask the driver.
    plain: Option<String>,
    sockets: SocketMap,
    counters: CpuCounters,
    link: Option<OwnedFd>,
}

impl Program {
    /// Loads it for an interface with so many queues; `ask`: the driver, if that can be.
    ///
    /// # Errors
    ///
    /// When the kernel does not load the plain program either.
    pub(super) fn load(interface: u32, queues: u32, ask: bool) -> io::Result<Program> {
        object::raise_memory_limit();
        let asks = match ask {
            true => load(interface, queues, BOUND, PLAIN),
            false => Err(io::Error::other("software stamps were asked for")),
        };
        let (object, name, plain) = match asks {
            Ok(object) => (object, BOUND, None),
            Err(reason) => {
                (load(interface, queues, PLAIN, BOUND)?, PLAIN, Some(reason.to_string()))
            }
        };
        let sockets = object.sockets(c"sockets")?;
        let counters = object.counters(c"counters")?;
        Ok(Program { object, interface, name, plain, sockets, counters, link: None })
    }

    /// What `queue` receives goes to `socket`.
    pub(super) fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets.register(queue, socket)
    }

    /// Puts it into the interface's driver.
    ///
    /// # Errors
    ///
    /// When another one is there, or the driver takes none.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.link = Some(self.object.link(self.name, self.interface, Mode::Native)?);
        Ok(())
    }

    /// Takes it off again: what the interface receives is the kernel's.
    pub(super) fn detach(&mut self) {
        self.link = None;
    }

    /// Why it does not ask the driver for the NIC's stamps; nothing when it does.
    pub(super) fn plain(&self) -> Option<&str> {
        self.plain.as_deref()
    }

    /// Frames that it saw, and those of them for which there was no socket.
    ///
    /// # Errors
    ///
    /// When the kernel does not let its counters be read.
    pub(super) fn counts(&self) -> io::Result<[u64; 2]> {
        let count = |counter| self.counters.sum(counter);
        Ok([count(FRAMES)?, count(NO_SOCKET)?])
    }
}

fn load(interface: u32, queues: u32, program: &CStr, other: &CStr) -> io::Result<Object> {
    let object = Object::open(OBJECT)?;
    object.set_entries(c"sockets", queues)?;
    object.leave_out(other)?;
    if program == BOUND {
        object.bind_to_device(program, interface)?;
    }
    object.load()?;
    Ok(object)
}
