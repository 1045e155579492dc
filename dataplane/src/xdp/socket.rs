//! AF_XDP sockets: opening them, and their rings.
//!
//! **Invariant.** The rings of a socket are used with the UMEM it was opened on, and by one port.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use super::error::XdpError;
use super::object::Mode;
use super::options;
use super::program::Attachment;
use super::rings::Rings;
use super::settings::{CopyMode, Settings};
use super::statistics::SocketStatistics;
use super::umem::{Umem, cause_of};
use super::{XdpFrames, XdpPort};
use crate::batch::PortId;

/// A queue stays busy for a moment after its last socket was closed: how often to try again, how
/// long apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Opens queue `queue` of both ports for one worker, with packet memory that they share. What the
/// queue receives goes to the worker from the moment this returns.
///
/// # Errors
///
/// When the settings are out of range or do not fit the attachments, or the kernel refuses.
pub fn open(
    lan: &Attachment,
    wan: &Attachment,
    queue: u32,
    settings: &Settings,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    settings.check()?;
    for attachment in [lan, wan] {
        check_attachment(attachment, queue, settings)?;
    }
    let sides = [lan, wan];
    let (ports, frames) = match settings.copy {
        CopyMode::Copy => open_sides(sides, queue, settings, BindFlags::XDP_COPY)?,
        CopyMode::ZeroCopy => open_sides(sides, queue, settings, BindFlags::XDP_ZEROCOPY)?,
        CopyMode::Auto => open_auto(sides, queue, settings)?,
    };
    for (attachment, port) in sides.into_iter().zip(&ports) {
        attachment
            .register(queue, port.rings().socket())
            .map_err(|cause| port.error("adding the socket to the XDP program's map", cause))?;
        tracing::info!(interface = port.interface(), queue, mode = port.mode(), "port open");
    }
    Ok((ports, frames))
}

fn check_attachment(
    attachment: &Attachment,
    queue: u32,
    settings: &Settings,
) -> Result<(), XdpError> {
    if queue >= attachment.queues() {
        return Err(XdpError::Queue {
            interface: attachment.interface().to_owned(),
            queue,
            queues: attachment.queues(),
        });
    }
    if attachment.frame_bytes() != settings.frame_bytes {
        return Err(XdpError::FrameBytes {
            interface: attachment.interface().to_owned(),
            attached: attachment.frame_bytes(),
            opened: settings.frame_bytes,
        });
    }
    Ok(())
}

/// Sockets that share packet memory run in the same mode, so both ports can do zero-copy or none
/// does.
fn open_auto(
    sides: [&Attachment; 2],
    queue: u32,
    settings: &Settings,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    let generic = sides.into_iter().find(|side| side.mode() == Mode::Generic);
    let reason = if let Some(generic) = generic {
        format!("{}: generic XDP always copies", generic.interface())
    } else {
        match open_sides(sides, queue, settings, BindFlags::XDP_ZEROCOPY) {
            Ok(opened) => return Ok(opened),
            Err(refusal) => refusal.without_remedy(),
        }
    };
    tracing::warn!(queue, reason, "zero-copy is not possible here: packets are copied, slower");
    open_sides(sides, queue, settings, BindFlags::XDP_COPY)
}

fn open_sides(
    [lan, wan]: [&Attachment; 2],
    queue: u32,
    settings: &Settings,
    mode: BindFlags,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    let (umem, free) = Umem::new(settings, &subject(lan, queue))?;
    let mut frames = XdpFrames::new(umem, free);
    let mut open = |port, attachment| {
        let rings = SocketRings::open(attachment, queue, settings, mode, frames.memory())?;
        Ok(XdpPort::new(port, rings, &mut frames))
    };
    let ports = [open(PortId::Lan, lan)?, open(PortId::Wan, wan)?];
    Ok((ports, frames))
}

fn subject(attachment: &Attachment, queue: u32) -> String {
    format!("{}, queue {queue}", attachment.interface())
}

/// The socket on one queue of one interface: its rings, and the calls that wake the kernel.
pub struct SocketRings {
    interface: String,
    queue: u32,
    zero_copy: bool,
    busy_poll: bool,
    entries: usize,
    receive: RxQueue,
    fill: FillQueue,
    transmit: TxQueue,
    completion: CompQueue,
}

impl SocketRings {
    fn open(
        attachment: &Attachment,
        queue: u32,
        settings: &Settings,
        mode: BindFlags,
        umem: &Umem,
    ) -> Result<SocketRings, XdpError> {
        let subject = subject(attachment, queue);
        let fail = |operation: String, cause| XdpError::kernel(&subject, operation, cause);
        let zero_copy = mode.contains(BindFlags::XDP_ZEROCOPY);
        let asked = if zero_copy { "zero-copy" } else { "copy" };

        let (transmit, receive, fill, completion) =
            bind(attachment.interface(), queue, settings, mode, umem)
                .map_err(|cause| fail(format!("opening an AF_XDP socket ({asked})"), cause))?;
        let socket = socket_of(&receive);
        let zero_copy = options::zero_copy(socket)
            .map_err(|cause| fail("asking for the socket's mode".to_owned(), cause))?;
        close_on_exec(socket)
            .map_err(|cause| fail("keeping the socket to us".to_owned(), cause))?;
        set_options(socket, settings);

        Ok(SocketRings {
            interface: attachment.interface().to_owned(),
            queue,
            zero_copy,
            busy_poll: settings.busy_poll_budget > 0,
            entries: settings.ring_entries as usize,
            receive,
            fill,
            transmit,
            completion,
        })
    }

    fn mode(&self) -> &'static str {
        if self.zero_copy { "zero-copy" } else { "copy" }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        socket_of(&self.receive)
    }
}

impl XdpPort {
    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.rings().interface
    }

    /// The queue's number.
    pub fn queue(&self) -> u32 {
        self.rings().queue
    }

    /// How packets get between driver and packet memory: "zero-copy" or "copy", as the kernel says.
    pub fn mode(&self) -> &'static str {
        self.rings().mode()
    }

    fn error(&self, operation: &str, cause: io::Error) -> XdpError {
        XdpError::kernel(format!("{}, queue {}", self.interface(), self.queue()), operation, cause)
    }
}

impl Rings for SocketRings {
    type Memory = Umem;

    #[inline]
    fn entries(&self) -> usize {
        self.entries
    }

    #[inline]
    fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    #[inline]
    fn fill_room(&mut self, wanted: usize) -> usize {
        self.fill.nb_free(wanted as u32) as usize
    }

    #[inline]
    unsafe fn fill(&mut self, frames: &[FrameDesc]) -> usize {
        // SAFETY: the caller gives free frames of this socket's UMEM.
        unsafe { self.fill.produce(frames) }
    }

    #[inline]
    fn receive(&mut self, packets: &mut [FrameDesc]) -> usize {
        // SAFETY: this ring belongs to the socket that its port's frames were opened for, and the
        // port's ledger judges what it says.
        unsafe { self.receive.consume(packets) }
    }

    #[inline]
    unsafe fn transmit(&mut self, packets: &[FrameDesc]) -> usize {
        // SAFETY: the caller gives frames of this socket's UMEM that nobody has any more.
        unsafe { self.transmit.produce(packets) }
    }

    #[inline]
    fn transmit_unread(&mut self) -> usize {
        self.entries - self.transmit.nb_free_exact() as usize
    }

    #[inline]
    fn complete(&mut self, frames: &mut [FrameDesc]) -> usize {
        // SAFETY: as in `receive`.
        unsafe { self.completion.consume(frames) }
    }

    /// Busy polling receives in our calls alone.
    #[inline]
    fn receive_needs_wakeup(&self) -> bool {
        self.busy_poll || self.fill.needs_wakeup()
    }

    #[inline]
    fn transmit_needs_wakeup(&self) -> bool {
        self.transmit.needs_wakeup()
    }

    fn wake_receive(&mut self) -> Result<(), Errno> {
        recv(self.socket().as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT).map(drop)
    }

    fn wake_transmit(&mut self) -> Result<(), Errno> {
        send(self.socket().as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT).map(drop)
    }

    fn wait(
        rings: [&mut SocketRings; 2],
        wanted: [bool; 2],
        bell: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) {
        let [lan, wan] = rings.each_ref().map(|rings| rings.socket());
        let events = |wanted| if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut waited: ArrayVec<PollFd<'_>, 3> = ArrayVec::new();
        waited.push(PollFd::new(lan, events(wanted[0])));
        waited.push(PollFd::new(wan, events(wanted[1])));
        waited.extend(bell.map(|bell| PollFd::new(bell, PollFlags::POLLIN)));
        // An error is a signal, or nothing that another round would not meet again and count.
        let _ = ppoll(&mut waited, Some(TimeSpec::from_duration(timeout)), None);
    }

    /// Should the kernel not answer, all is 0.
    fn statistics(&self) -> SocketStatistics {
        let kernel = self.receive.fd().xdp_statistics().unwrap_or_default();
        SocketStatistics {
            rx_dropped: kernel.rx_dropped(),
            rx_invalid_descs: kernel.rx_invalid_descs(),
            tx_invalid_descs: kernel.tx_invalid_descs(),
            rx_ring_full: kernel.rx_ring_full(),
            rx_fill_ring_empty_descs: kernel.rx_fill_ring_empty_descs(),
            tx_ring_empty_descs: kernel.tx_ring_empty_descs(),
            ..SocketStatistics::default()
        }
    }
}

impl fmt::Debug for SocketRings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SocketRings")
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}

fn socket_of(ring: &RxQueue) -> BorrowedFd<'_> {
    // SAFETY: the ring holds the socket, which is open as long as the ring is borrowed.
    unsafe { BorrowedFd::borrow_raw(ring.fd().as_raw_fd()) }
}

type Queues = (TxQueue, RxQueue, FillQueue, CompQueue);

/// Creates a socket and binds it, again and again while the queue is still busy with a former one.
fn bind(
    interface: &str,
    queue: u32,
    settings: &Settings,
    mode: BindFlags,
    umem: &Umem,
) -> io::Result<Queues> {
    let interface: Interface = interface.parse().map_err(io::Error::other)?;
    let ring = QueueSize::new(settings.ring_entries).map_err(io::Error::other)?;
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let mut tries = 0;
    loop {
        // SAFETY: the program is ours to load, so libxdp detaches none when the socket is dropped.
        match unsafe { Socket::new(config, umem.registered(), &interface, queue) } {
            Ok((transmit, receive, Some((fill, completion)))) => {
                return Ok((transmit, receive, fill, completion));
            }
            Ok((_, _, None)) => return Err(io::Error::other("both ports are the same queue")),
            Err(error) => {
                let cause = cause_of(&error);
                tries += 1;
                if cause.raw_os_error() != Some(libc::EBUSY) || tries == BUSY_TRIES {
                    return Err(cause);
                }
                thread::sleep(BUSY_PAUSE);
            }
        }
    }
}

/// A child process must not keep the queue busy.
fn close_on_exec(socket: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

fn set_options(socket: BorrowedFd<'_>, settings: &Settings) {
    options::raise_transmit_budget(socket, settings.ring_entries);
    // What the kernel accounts for a packet is below twice its frame.
    let frame = 2 * settings.frame_bytes;
    options::raise_send_buffer(socket, settings.ring_entries.saturating_mul(frame));
    if settings.busy_poll_budget > 0 {
        options::prefer_busy_poll(socket, settings.busy_poll_budget);
    }
}
