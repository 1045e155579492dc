//! An AF_XDP socket that only receives, with packet memory of its own: thin kernel calls.
//!
//! ```text
//!   fill ring: free frames --> kernel writes note and packet --> receive ring --> we read them --+
//!       ^                                                                                       |
//!       +---------------------------------------------------------------------------------------+
//! ```
//!
//! The structures are those of linux/if_xdp.h; Documentation/networking/af_xdp.rst describes them. A frame as the
//! kernel fills it:
//!
//! ```text
//!   0      224             256                          2048 or 4096
//!   |      | note, if any  | packet                     |
//! ```
//!
//! Invariant: a frame is the kernel's (fill ring, receive ring) or ours, never both; ours are looked at in
//! [`ReceiveSocket::next`] alone, and all of them fit the fill ring. A descriptor that names no place in the memory
//! is a bug of the kernel, and ends the reader.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::note::NOTE_BYTES;

/// Bytes that the kernel keeps free before a packet (`XDP_PACKET_HEADROOM`).
pub(super) const HEADROOM_BYTES: usize = 256;

/// What the kernel counted since the socket was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets dropped because no frame was free, or for reasons that have no counter of their own.
    pub dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub ring_full: u64,
    /// Times that no frame was free.
    pub no_frame: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ReceiveSocket {
    // Before the memory: the kernel writes to it until the socket is closed.
    receive: Mapped<libc::xdp_desc>,
    fill: Mapped<u64>,
    socket: OwnedFd,
    memory: Memory,
    /// Frames that are ours.
    free: Vec<u64>,
}

impl ReceiveSocket {
    /// A socket with `frames` frames, a power of two, of `frame_bytes` bytes. It receives nothing yet.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW, `ENOBUFS` when so much memory may not be locked.
    pub(super) fn new(frames: u32, frame_bytes: usize) -> io::Result<ReceiveSocket> {
        let socket = unbound()?;
        let memory = Memory::new(frames as usize, frame_bytes)?;
        let registration = libc::xdp_umem_reg {
            addr: memory.start.as_ptr().addr() as u64,
            len: memory.bytes() as u64,
            chunk_size: frame_bytes as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&socket, libc::XDP_UMEM_REG, &registration)?;
        set(&socket, libc::XDP_UMEM_FILL_RING, &frames)?;
        // The kernel wants one, however little is sent.
        set(&socket, libc::XDP_UMEM_COMPLETION_RING, &2_u32)?;
        set(&socket, libc::XDP_RX_RING, &frames)?;
        let offsets = offsets(&socket)?;
        let fill =
            Mapped::new(&socket, &offsets.fr, frames, libc::XDP_UMEM_PGOFF_FILL_RING as i64)?;
        let receive = Mapped::new(&socket, &offsets.rx, frames, libc::XDP_PGOFF_RX_RING)?;
        let free = (0..u64::from(frames)).map(|frame| frame * frame_bytes as u64).collect();
        let mut socket = ReceiveSocket { receive, fill, socket, memory, free };
        socket.give_back();
        Ok(socket)
    }

    /// From now on it receives what an XDP program sends to it from this queue; `zero_copy`: the driver writes into
    /// the memory itself.
    ///
    /// # Errors
    ///
    /// `EBUSY` when the queue has a socket, `EOPNOTSUPP` when the driver cannot, `EINVAL` when there is no such queue.
    pub(super) fn bind(&self, interface: u32, queue: u32, zero_copy: bool) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            // Without XDP_USE_NEED_WAKEUP a driver that finds no frame looks again by itself.
            sxdp_flags: if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY },
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let bytes = size_of_val(&address) as libc::socklen_t;
        let pointer = (&raw const address).cast();
        // SAFETY: the kernel reads as many bytes of the address as it has.
        let result = unsafe { libc::bind(self.socket.as_raw_fd(), pointer, bytes) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Packets that wait.
    pub(super) fn waiting(&self) -> u32 {
        self.receive.written().wrapping_sub(self.receive.at)
    }

    /// The next packet, with the place of its note.
    #[inline]
    pub(super) fn next(&self) -> Option<(&[u8; NOTE_BYTES], &[u8])> {
        if self.waiting() == 0 {
            return None;
        }
        let descriptor = self.receive.next();
        Some(self.memory.packet(descriptor.addr as usize, descriptor.len as usize))
    }

    /// Takes the frame of the next packet back.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[inline]
    pub(super) fn pass(&mut self) {
        assert!(self.waiting() > 0, "there is a packet to pass");
        let address = self.receive.next().addr as usize;
        self.receive.pass();
        self.memory.forget_note(address);
        self.free.push((address - address % self.memory.frame_bytes) as u64);
    }

    /// Gives all frames that are ours back to the kernel; the rest the next time, should the ring look full.
    pub(super) fn give_back(&mut self) {
        let room = self.fill.entries - (self.fill.at.wrapping_sub(self.fill.read_until()));
        for _ in 0..room {
            let Some(frame) = self.free.pop() else { break };
            self.fill.write(frame);
        }
        self.fill.publish();
        self.receive.release();
    }

    /// What the kernel counted (`XDP_STATISTICS`).
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub(super) fn counts(&self) -> io::Result<Counts> {
        let mut counts = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        get(&self.socket, libc::XDP_STATISTICS, &mut counts)?;
        Ok(Counts {
            dropped: counts.rx_dropped,
            ring_full: counts.rx_ring_full,
            no_frame: counts.rx_fill_ring_empty_descs,
        })
    }
}

impl AsFd for ReceiveSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Frames of packet memory.
#[derive(Debug)]
struct Memory {
    start: NonNull<c_void>,
    frames: usize,
    frame_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone, wherever it is moved.
unsafe impl Send for Memory {}

impl Memory {
    fn new(frames: usize, frame_bytes: usize) -> io::Result<Memory> {
        let bytes = NonZeroUsize::new(frames * frame_bytes)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping, of nothing that is used already.
        let start = unsafe { mmap_anonymous(None, bytes, access, flags) }?;
        Ok(Memory { start, frames, frame_bytes })
    }

    fn bytes(&self) -> usize {
        self.frames * self.frame_bytes
    }

    /// A packet of which the kernel has just said that it is ours, and where its note is.
    #[inline]
    fn packet(&self, address: usize, bytes: usize) -> (&[u8; NOTE_BYTES], &[u8]) {
        let place = address % self.frame_bytes;
        assert!(
            address < self.bytes() && place >= NOTE_BYTES && place + bytes <= self.frame_bytes,
            "a packet of {bytes} bytes at byte {address} of packet memory"
        );
        // SAFETY: just checked to lie within the mapping, and behind a place for a note.
        let note = unsafe { self.start.cast::<u8>().add(address - NOTE_BYTES) };
        // SAFETY: the frame is ours as long as `self` is borrowed, and any bytes are bytes.
        let whole = unsafe { std::slice::from_raw_parts(note.as_ptr(), NOTE_BYTES + bytes) };
        whole.split_first_chunk().expect("it begins with a note's bytes")
    }

    /// So that what is in this frame next is not taken to have it.
    #[inline]
    fn forget_note(&mut self, address: usize) {
        assert!(address < self.bytes() && address % self.frame_bytes >= NOTE_BYTES);
        // SAFETY: just checked to lie within the mapping.
        let note = unsafe { self.start.cast::<u8>().add(address - NOTE_BYTES) };
        // SAFETY: the frame is ours, and nothing of it is borrowed.
        unsafe { note.write_bytes(0, NOTE_BYTES) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and nothing of it is borrowed any more.
        let unmapped = unsafe { munmap(self.start, self.bytes()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// A ring that the kernel shares, and our place in it.
#[derive(Debug)]
struct Mapped<T> {
    memory: NonNull<c_void>,
    bytes: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    descriptors: NonNull<T>,
    entries: u32,
    /// Where we read or write next, counted on and on.
    at: u32,
}

// SAFETY: the mapping belongs to this value alone, wherever it is moved.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    fn new(
        socket: &OwnedFd,
        offsets: &libc::xdp_ring_offset,
        entries: u32,
        page: i64,
    ) -> io::Result<Mapped<T>> {
        let bytes = offsets.desc as usize + entries as usize * size_of::<T>();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        let length = NonZeroUsize::new(bytes).expect("a ring has a header");
        // SAFETY: a new mapping of the ring that the kernel has just made, exactly as long as it.
        let memory = unsafe { mmap(None, length, access, flags, socket, page) }?;
        let place = |offset: u64| {
            assert!(offset <= offsets.desc && offset.is_multiple_of(4), "{offsets:?}");
            // SAFETY: the descriptors lie within the mapping, and this does not lie behind them.
            unsafe { memory.cast::<u8>().add(offset as usize) }
        };
        Ok(Mapped {
            memory,
            bytes,
            producer: place(offsets.producer).cast(),
            consumer: place(offsets.consumer).cast(),
            descriptors: place(offsets.desc).cast(),
            entries,
            at: 0,
        })
    }

    /// How far it is written.
    #[inline]
    fn written(&self) -> u32 {
        // SAFETY: in the mapping, aligned, and shared with the kernel by atomic access only.
        unsafe { self.producer.as_ref() }.load(Ordering::Acquire)
    }

    /// How far it is read.
    fn read_until(&self) -> u32 {
        // SAFETY: as in `written`.
        unsafe { self.consumer.as_ref() }.load(Ordering::Acquire)
    }

    /// The next entry, which is written.
    #[inline]
    fn next(&self) -> T {
        // SAFETY: the kernel has published this entry and does not touch it before `release`.
        unsafe { self.entry().read() }
    }

    /// The next entry is the one behind it.
    #[inline]
    fn pass(&mut self) {
        self.at = self.at.wrapping_add(1);
    }

    /// What was read is the kernel's again.
    fn release(&self) {
        // SAFETY: as in `written`.
        unsafe { self.consumer.as_ref() }.store(self.at, Ordering::Release);
    }

    /// Writes the next entry, which is read.
    fn write(&mut self, value: T) {
        let entry = self.entry();
        self.at = self.at.wrapping_add(1);
        // SAFETY: the kernel does not look at this entry before `publish`.
        unsafe { entry.write(value) };
    }

    /// What was written is the kernel's.
    fn publish(&self) {
        // SAFETY: as in `written`.
        unsafe { self.producer.as_ref() }.store(self.at, Ordering::Release);
    }

    #[inline]
    fn entry(&self) -> NonNull<T> {
        // SAFETY: there are `entries` entries, a power of two.
        unsafe { self.descriptors.add((self.at & (self.entries - 1)) as usize) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and nothing of it is borrowed any more.
        let unmapped = unsafe { munmap(self.memory, self.bytes) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

fn unbound() -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    let ring = || libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut offsets = libc::xdp_mmap_offsets { rx: ring(), tx: ring(), fr: ring(), cr: ring() };
    get(socket, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    Ok(offsets)
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads as many bytes as the value has; the options used here are numbers.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, pointer, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get<T>(socket: &OwnedFd, option: i32, value: &mut T) -> io::Result<()> {
    let mut bytes = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_mut(value).cast();
    // SAFETY: the kernel writes no more bytes than the value has, all of them numbers.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, pointer, &raw mut bytes)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
