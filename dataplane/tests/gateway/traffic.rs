//! Traffic under a test's control: a stream that is checked byte by byte, a conversation packet by
//! packet, numbered datagrams, and raw frames.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, setsockopt,
    socket, sockopt,
};

use crate::lab::{CLIENT, Namespace, SERVER, wait_for};
use crate::site::{BOUND, Site};

/// Bytes of no pattern, and always the same ones.
pub fn random_bytes(count: usize) -> Vec<u8> {
    let mut noise = Noise::new(count as u64);
    let mut bytes = vec![0; count];
    noise.fill(&mut bytes);
    bytes
}

/// xorshift64.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A TCP connection that the far host opens to the datacenter.
fn connect(site: &Site, address: &str) -> (TcpStream, TcpStream) {
    let listener = site.datacenter().enter(|| TcpListener::bind((address, 0)).expect("free"));
    let port = listener.local_addr().expect("bound").port();
    let far = site.far_host().enter(|| TcpStream::connect((address, port)).expect("it listens"));
    let (near, _) = listener.accept().expect("it is connected");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("possible");
        stream.set_read_timeout(Some(BOUND)).expect("possible");
        stream.set_write_timeout(Some(BOUND)).expect("possible");
    }
    (near, far)
}

/// An endless TCP transfer from the datacenter to the far host, at full speed, in which every byte is
/// checked. A standstill of [`BOUND`] ends it with a failure.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    arrived_bytes: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
}

const BLOCK_BYTES: usize = 8192;

impl Transfer {
    /// Begins.
    pub fn start(site: &Site) -> Transfer {
        let (mut near, mut far) = connect(site, CLIENT);
        let stop = Arc::new(AtomicBool::new(false));
        let arrived_bytes = Arc::new(AtomicU64::new(0));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let (mut noise, mut block, mut sent) = (Noise::new(1), [0; BLOCK_BYTES], 0);
            while !stopped.load(Ordering::Relaxed) {
                noise.fill(&mut block);
                near.write_all(&block).expect("the transfer goes on");
                sent += BLOCK_BYTES as u64;
            }
            near.shutdown(Shutdown::Write).expect("it is open");
            sent
        });
        let progress = Arc::clone(&arrived_bytes);
        let receiver = thread::spawn(move || {
            let (mut noise, mut expected, mut block) =
                (Noise::new(1), [0; BLOCK_BYTES], [0; BLOCK_BYTES]);
            loop {
                match far.read_exact(&mut block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                    Err(error) => panic!("the transfer stands still: {error}"),
                }
                noise.fill(&mut expected);
                assert!(block == expected, "other bytes than were sent");
                progress.fetch_add(BLOCK_BYTES as u64, Ordering::Relaxed);
            }
            progress.load(Ordering::Relaxed)
        });
        Transfer { stop, arrived_bytes, sender, receiver }
    }

    /// Waits until a megabyte more has arrived.
    pub fn wait_for_progress(&self) {
        let goal = self.arrived_bytes.load(Ordering::Relaxed) + 1_000_000;
        wait_for("the transfer to go on", BOUND, || {
            assert!(!self.receiver.is_finished() && !self.sender.is_finished(), "it broke off");
            self.arrived_bytes.load(Ordering::Relaxed) >= goal
        });
    }

    /// Ends it when all that was sent has arrived.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("it went well");
        let arrived = self.receiver.join().expect("it went well");
        assert_eq!(sent, arrived, "bytes sent and arrived");
    }
}

/// A TCP connection on which the datacenter says something, in one packet, only when told to.
pub struct Conversation {
    near: TcpStream,
    far: TcpStream,
}

impl Conversation {
    /// The far host opens it.
    pub fn open(site: &Site) -> Conversation {
        Conversation::open_at(site, CLIENT)
    }

    /// The same at another address of the datacenter.
    pub fn open_at(site: &Site, address: &str) -> Conversation {
        let (near, far) = connect(site, address);
        Conversation { near, far }
    }

    /// The datacenter's port.
    pub fn port(&self) -> u16 {
        self.near.local_addr().expect("bound").port()
    }

    /// The far host's.
    pub fn far_port(&self) -> u16 {
        self.far.local_addr().expect("bound").port()
    }

    /// One segment there and one back, `times` times.
    pub fn talk(&mut self, times: usize) {
        let mut heard = [0; 100];
        for _ in 0..times {
            self.near.write_all(&[1; 100]).expect("open");
            self.far.read_exact(&mut heard).expect("it arrives");
            self.far.write_all(&[2]).expect("open");
            self.near.read_exact(&mut heard[..1]).expect("it arrives");
        }
    }
}

/// Numbered datagrams, one about every fifth of a millisecond, until it is ended.
pub struct Train {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u32>,
    receiver: JoinHandle<Vec<u32>>,
    arrived: Arc<AtomicU64>,
}

/// What became of a train.
#[derive(Debug)]
pub struct Arrivals {
    /// Datagrams sent.
    pub sent: u32,
    /// Sent and never arrived.
    pub lost: usize,
    /// Arrivals of a datagram that was there already.
    pub doubled: usize,
}

const PACE: Duration = Duration::from_micros(200);

impl Train {
    /// From the datacenter to the far host, or the other way.
    pub fn start(site: &Site, outbound: bool) -> Train {
        let (sender, receiver) = udp_pair(site, outbound);

        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU64::new(0));
        let (tell_length, length) = channel();
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut number: u32 = 0;
            while !stopped.load(Ordering::Relaxed) {
                // Its neighbour does not answer at the moment, or its queue is full: another try.
                if sender.send(&number.to_be_bytes()).is_ok() {
                    number += 1;
                }
                thread::sleep(PACE);
            }
            tell_length.send(number).expect("the receiver waits for it");
            number
        });
        let counted = Arc::clone(&arrived);
        let receiver = thread::spawn(move || {
            let (mut numbers, mut number) = (Vec::new(), [0; 4]);
            let (mut sent, mut silences) = (None, 0);
            loop {
                match receiver.recv(&mut number) {
                    Ok(_) => {
                        numbers.push(u32::from_be_bytes(number));
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    // After the end: one silence when all are here, because one may come twice;
                    // ten, and what is not here will not come.
                    Err(_) => {
                        sent = sent.or_else(|| length.try_recv().ok());
                        silences += u32::from(sent.is_some());
                        if silences >= 10 || sent.is_some_and(|sent| numbers.len() >= sent as usize)
                        {
                            return numbers;
                        }
                    }
                }
            }
        });
        let train = Train { stop, sender, receiver, arrived };
        train.wait_for_progress();
        train
    }

    /// Waits until what is sent from now on arrives.
    pub fn wait_for_progress(&self) {
        let goal = self.arrived.load(Ordering::Relaxed) + 100;
        wait_for("the train to go on", BOUND, || self.arrived.load(Ordering::Relaxed) >= goal);
    }

    /// Ends it and counts.
    pub fn end(self) -> Arrivals {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("it went well");
        let mut numbers = self.receiver.join().expect("it went well");
        let arrivals = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.last().is_none_or(|last| *last < sent), "arrived and never sent");
        Arrivals { sent, lost: sent as usize - numbers.len(), doubled: arrivals - numbers.len() }
    }
}

/// Sends frames as they are out of a host's `eth0`.
pub struct Injector {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl Injector {
    /// On this host.
    pub fn new(host: &Namespace) -> Injector {
        let (socket, interface) = raw_socket(host, "eth0");
        Injector { socket, interface }
    }

    /// Sends one.
    pub fn send(&self, frame: &[u8]) {
        let socket = self.socket.as_raw_fd();
        let sent = sendto(socket, frame, &self.interface, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "a frame of {} bytes", frame.len());
    }

    /// Sends one, if the cable takes it.
    pub fn try_send(&self, frame: &[u8]) -> bool {
        sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::MSG_DONTWAIT).is_ok()
    }
}

/// Frames sent over and over, as they are, out of a host's `eth0`, until it is ended.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
}

impl Flood {
    /// As fast as the cable takes them, or one every `pace`.
    pub fn start(host: &Namespace, frames: Vec<Vec<u8>>, pace: Option<Duration>) -> Flood {
        let injector = Injector::new(host);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            for frame in frames.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                sent += u64::from(injector.try_send(frame));
                if let Some(pace) = pace {
                    thread::sleep(pace);
                }
            }
            sent
        });
        Flood { stop, sender }
    }

    /// Ends it; returns how many frames the cable took.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("it went well")
    }
}

/// A raw socket in a host's namespace, and the address of one of its interfaces.
pub fn raw_socket(host: &Namespace, interface: &str) -> (OwnedFd, LinkAddr) {
    host.enter(|| {
        let (flags, all) = (SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).expect("root may");
        let address = getifaddrs()
            .expect("the kernel tells")
            .filter(|one| one.interface_name == interface)
            .find_map(|one| one.address?.as_link_addr().copied())
            .expect("it has a link address");
        (socket, address)
    })
}

/// A MAC address as bytes.
pub fn mac(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, digits) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("two digits");
    }
    bytes
}

/// A sender and the receiver that it is connected to: from the datacenter to the far host, or the other way.
pub fn udp_pair(site: &Site, outbound: bool) -> (UdpSocket, UdpSocket) {
    let (from, to, address) = match outbound {
        true => (site.datacenter(), site.far_host(), SERVER),
        false => (site.far_host(), site.datacenter(), CLIENT),
    };
    let receiver = to.enter(|| UdpSocket::bind((address, 0)).expect("free"));
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).expect("root may");
    receiver.set_read_timeout(Some(Duration::from_millis(100))).expect("possible");
    let sender = from.enter(|| UdpSocket::bind("0.0.0.0:0").expect("free"));
    sender.connect(receiver.local_addr().expect("bound")).expect("reachable");
    (sender, receiver)
}
