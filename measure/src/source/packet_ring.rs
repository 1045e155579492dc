//! A packet socket with a ring of blocks (TPACKET_V3): thin kernel calls.
//!
//! ```text
//!   kernel fills a block --> retires it: full, or after RETIRE_MS --> we read it --> give it back
//!                            block_status = USER                      Block        block_status = KERNEL
//! ```
//!
//! The structures are those of linux/if_packet.h; Documentation/networking/packet_mmap.rst describes them.
//!
//! Invariant: a block is the kernel's or ours, never both. It is ours from the moment its status says so until
//! [`Block`] is dropped, and only then are its bytes looked at.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 1 << 18;
/// After so long the kernel hands over a block that is not full.
pub const RETIRE_MS: u32 = 10;

/// What a ring wants.
#[derive(Debug, Clone, Copy)]
pub struct RingSettings {
    /// Bytes of a frame that are kept.
    pub snap_bytes: u32,
    /// Blocks of [`BLOCK_BYTES`].
    pub blocks: u32,
    /// Whether the NIC's stamps are wanted.
    pub hardware: bool,
}

/// What the kernel counted since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// Frames for this socket, with those dropped.
    pub frames: u64,
    /// Frames for which the ring had no room.
    pub drops: u64,
    /// Times the ring was full.
    pub full: u64,
}

/// A socket and its ring.
#[derive(Debug)]
pub struct PacketRing {
    socket: OwnedFd,
    memory: NonNull<c_void>,
    blocks: usize,
    next: usize,
}

// SAFETY: the memory belongs to this value alone, wherever it is moved.
unsafe impl Send for PacketRing {}

/// A frame in a block.
#[derive(Debug, Clone, Copy)]
pub struct RingFrame<'b> {
    /// `TP_STATUS_*`.
    pub status: u32,
    /// Of its stamp.
    pub seconds: u32,
    /// Of its stamp, below a second.
    pub nanoseconds: u32,
    /// Bytes of the frame, without a VLAN tag that was taken off.
    pub wire_bytes: u32,
    /// The tag that was taken off, when the status says so.
    pub vlan_tag: u16,
    /// Its type, when the status says so.
    pub vlan_type: u16,
    /// What was kept.
    pub bytes: &'b [u8],
}

impl PacketRing {
    /// A socket with a ring that receives nothing yet.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW, `ENOMEM` when the ring is too large.
    pub fn new(settings: RingSettings) -> io::Result<PacketRing> {
        let flags = SockFlag::SOCK_CLOEXEC;
        // Without a protocol it receives nothing before it is bound.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let packet = libc::SOL_PACKET;
        set(&socket, packet, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
        set(&socket, packet, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        let stamps = stamp_flags(settings.hardware).cast_signed();
        set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &stamps)?;
        set(&socket, packet, libc::PACKET_TIMESTAMP, &stamps)?;
        keep_only(&socket, settings.snap_bytes)?;
        let blocks = settings.blocks as usize;
        let frame_bytes = 2048;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: settings.blocks,
            // Frames of this version have the size they need; these two must only fit each other.
            tp_frame_size: frame_bytes,
            tp_frame_nr: settings.blocks * (BLOCK_BYTES as u32 / frame_bytes),
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, packet, libc::PACKET_RX_RING, &request)?;
        let bytes = NonZeroUsize::new(blocks * BLOCK_BYTES)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of the ring that the kernel has just made, exactly as long as it.
        let memory = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &socket, 0) }?;
        Ok(PacketRing { socket, memory, blocks, next: 0 })
    }

    /// From now on it receives every frame that comes in at the interface, whomever it is addressed to.
    ///
    /// # Errors
    ///
    /// When the interface is gone.
    pub fn bind(&self, index: u32) -> io::Result<()> {
        listen(&self.socket, index)
    }

    /// The next block, if the kernel has handed it over.
    pub fn next_block(&mut self) -> Option<Block<'_>> {
        let at = self.next * BLOCK_BYTES;
        // SAFETY: there are `blocks` blocks, and `next` is less than that.
        let block = unsafe { self.memory.cast::<u8>().add(at) };
        let block =
            Block { start: block, next: &mut self.next, blocks: self.blocks, ring: PhantomData };
        match block.status().load(Ordering::Acquire) & libc::TP_STATUS_USER {
            0 => {
                std::mem::forget(block);
                None
            }
            _ => Some(block),
        }
    }

    /// What the kernel counted since this was last called (`PACKET_STATISTICS`).
    ///
    /// # Errors
    ///
    /// None that are known of.
    pub fn counts(&self) -> io::Result<RingCounts> {
        let mut counts = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counts)?;
        Ok(RingCounts {
            frames: counts.tp_packets.into(),
            drops: counts.tp_drops.into(),
            full: counts.tp_freeze_q_cnt.into(),
        })
    }

    /// The error that waits at the socket, if one does; it is forgotten by being asked for.
    pub fn error(&self) -> Option<io::Error> {
        let mut error = 0_i32;
        match get(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut error) {
            Ok(()) if error == 0 => None,
            Ok(()) => Some(io::Error::from_raw_os_error(error)),
            Err(error) => Some(error),
        }
    }

    /// Bytes of the ring.
    pub fn bytes(&self) -> usize {
        self.blocks * BLOCK_BYTES
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and no block of it is borrowed any more.
        let unmapped = unsafe { munmap(self.memory, self.blocks * BLOCK_BYTES) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// A block that is ours. It goes back to the kernel when this is dropped.
#[derive(Debug)]
pub struct Block<'r> {
    start: NonNull<u8>,
    next: &'r mut usize,
    blocks: usize,
    ring: PhantomData<&'r mut [u8]>,
}

impl Block<'_> {
    /// Its frames, in the order in which the kernel got them.
    pub fn frames(&self) -> Frames<'_> {
        let header = self.header();
        Frames {
            block: self.start,
            at: header.offset_to_first_pkt as usize,
            left: header.num_pkts,
            borrowed: PhantomData,
        }
    }

    fn header(&self) -> libc::tpacket_hdr_v1 {
        // SAFETY: every block starts with a descriptor, and is aligned to a page.
        let description = unsafe { self.start.cast::<libc::tpacket_block_desc>().as_ref() };
        // SAFETY: version 1 is the only member of the union.
        unsafe { description.hdr.bh1 }
    }

    fn status(&self) -> &AtomicU32 {
        const AT: usize = std::mem::offset_of!(libc::tpacket_block_desc, hdr)
            + std::mem::offset_of!(libc::tpacket_hdr_v1, block_status);
        // SAFETY: the status lies within the block.
        let status = unsafe { self.start.add(AT) };
        // SAFETY: aligned, mapped as long as the ring lives, and shared with the kernel by atomic access only.
        unsafe { AtomicU32::from_ptr(status.cast().as_ptr()) }
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        *self.next = (*self.next + 1) % self.blocks;
    }
}

/// The frames of a block.
#[derive(Debug)]
pub struct Frames<'b> {
    block: NonNull<u8>,
    at: usize,
    left: u32,
    borrowed: PhantomData<&'b [u8]>,
}

impl<'b> Iterator for Frames<'b> {
    type Item = RingFrame<'b>;

    #[inline]
    fn next(&mut self) -> Option<RingFrame<'b>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let room = BLOCK_BYTES - size_of::<libc::tpacket3_hdr>();
        assert!(self.at <= room, "a frame at byte {} of a block", self.at);
        // SAFETY: just checked to lie within the block.
        let header = unsafe { self.block.add(self.at) };
        // SAFETY: the kernel starts every frame with this header, aligned to 16 bytes, and the block is ours.
        let header = unsafe { header.cast::<libc::tpacket3_hdr>().as_ref() };
        let start = self.at + usize::from(header.tp_mac);
        let kept = header.tp_snaplen as usize;
        assert!(start + kept <= BLOCK_BYTES, "a frame of {kept} bytes at byte {start} of a block");
        // SAFETY: just checked to lie within the block.
        let bytes = unsafe { self.block.add(start) };
        // SAFETY: within the block, which is ours as long as it is borrowed, and the kernel leaves it alone.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast_const(), kept) };
        self.at += header.tp_next_offset as usize;
        Some(RingFrame {
            status: header.tp_status,
            seconds: header.tp_sec,
            nanoseconds: header.tp_nsec,
            wire_bytes: header.tp_len,
            vlan_tag: header.hv1.tp_vlan_tci as u16,
            vlan_type: header.hv1.tp_vlan_tpid,
            bytes,
        })
    }
}

/// Has an interface receive what is addressed to others, as long as the returned socket, which receives nothing, is
/// open.
///
/// # Errors
///
/// `EPERM` without CAP_NET_RAW, or when the interface is gone.
pub fn receive_all(index: u32) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    join(&socket, index)?;
    Ok(socket)
}

/// Has a packet socket receive every frame that comes in at an interface, and send to it.
pub(crate) fn listen(socket: &OwnedFd, index: u32) -> io::Result<()> {
    join(socket, index)?;
    // SAFETY: `sockaddr_ll` is numbers: all zeros are a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let bytes = size_of_val(&address) as libc::socklen_t;
    let pointer = (&raw const address).cast();
    // SAFETY: the kernel reads as many bytes of the address as it has.
    let result = unsafe { libc::bind(socket.as_raw_fd(), pointer, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The interface is promiscuous as long as the socket is open.
fn join(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let member = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)
}

fn stamp_flags(hardware: bool) -> u32 {
    let software = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    match hardware {
        true => software | libc::SOF_TIMESTAMPING_RX_HARDWARE | libc::SOF_TIMESTAMPING_RAW_HARDWARE,
        false => software,
    }
}

/// Has the kernel copy only the first bytes of each frame: a filter of one instruction.
fn keep_only(socket: &OwnedFd, snap_bytes: u32) -> io::Result<()> {
    let mut accept = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: snap_bytes,
    };
    let program = libc::sock_fprog { len: 1, filter: &raw mut accept };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets an option whose value is a plain structure.
pub(crate) fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads as many bytes as the value has; the options used here are plain structures.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks for an option whose value is numbers.
pub(crate) fn get<T>(socket: &OwnedFd, level: i32, option: i32, value: &mut T) -> io::Result<()> {
    let mut bytes = size_of::<T>() as libc::socklen_t;
    let pointer = std::ptr::from_mut(value).cast();
    // SAFETY: the kernel writes no more bytes than the value has, all of them numbers.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, pointer, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
