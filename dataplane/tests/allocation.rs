//! Nothing is allocated in a worker: its whole life, from the first packet to the last report, on ports in
//! memory and on real ones, under an allocator that counts. Nor is it for a packet that takes a tunnel.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::bounded;
use dataplane::config::{Config, Poll};
use dataplane::flow::classifier::Capacity;
use dataplane::flow::secret::Secret;
use dataplane::flow::slice::Slice;
use dataplane::gateway::{Gateway, Settings};
use dataplane::lane::decapsulation::Decapsulator;
use dataplane::lane::encapsulation::Encapsulator;
use dataplane::lane::fragmentation::Fragments;
use dataplane::lane::path_mtu::PathMtus;
use dataplane::lane::prefixes::Prefixes;
use dataplane::lane::sequence::Numbers;
use dataplane::lane::tunnel::Tunnel;
use dataplane::port::{Burst, FrameAccount, Port};
use dataplane::wire::buffer::Buffer;
use dataplane::wire::{checksum, icmp};
use dataplane::worker::{Export, Order, Published, Worker, WorkerReport};
use dataplane::xdp::{self, Attachment};

#[path = "lab/mod.rs"]
mod lab;

use lab::{Lab, Line, SERVER, wait_for};

/// The system's allocator, and how often each thread called it.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.set(CALLS.get() + 1);
}

// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time for a dozen ticks, or two.
const LIFE: Duration = Duration::from_millis(300);

/// Lets a worker live, with reloads, and returns its last report and its calls of the allocator.
fn live<P>(
    ports: [P; 2],
    frames: P::Frames,
    during: impl FnOnce(),
) -> (WorkerReport<P::Statistics>, u64)
where
    P: Port + Send,
    P::Frame: Send,
    P::Frames: Send,
{
    let defaults = Config::defaults();
    // Few flows, so that the table overflows; ports of different MTU, so that packets are dropped.
    let capacity = Capacity { ipv4_flows_max: 256, ipv6_flows_max: 256, ..defaults.capacity };
    let mut settings =
        Settings { rule: defaults.rule, lanes: defaults.lanes, frame_bytes_max: [u32::MAX, 1000] };
    let gateway = Gateway::new(settings, capacity, Secret::random());
    let (orders, inbox) = bounded(16);
    let published = Published::default();
    let poll = Poll::Adaptive;
    let (give, empty) = bounded(1);
    let (fill, filled) = bounded(1);
    let mut worker = Worker::new(ports, frames, gateway, poll, inbox, Arc::clone(&published))
        .with_export(Export::new(0, empty, fill));
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let before = CALLS.get();
            let report = worker.run();
            let calls = CALLS.get() - before;
            (report, calls, worker)
        });
        // Somebody who saves the flows, over and over.
        give.send(Slice::new(64)).expect("it runs");
        let saver = scope.spawn(move || {
            let (mut walks, mut flows) = (0, 0);
            while let Ok((_, mut slice)) = filled.recv() {
                flows += slice.flows().len();
                if slice.is_last() {
                    walks += 1;
                    slice.rewind();
                }
                // When the worker is gone there is nobody to give it to.
                let _ = give.send(slice);
            }
            (walks, flows)
        });
        for threshold_packets in 1..20 {
            settings.rule.threshold_packets = threshold_packets;
            orders.send(Order::Reload(settings)).expect("it runs");
            // Somebody who asks, at the same time.
            drop(published.lock().expect("it runs").clone());
        }
        during();
        thread::sleep(LIFE);
        orders.send(Order::Stop).expect("it runs");
        let (report, calls, ports) = worker.join().expect("it ended well");
        drop(ports);
        let (walks, flows) = saver.join().expect("it ended well");
        assert!(walks > 0, "a whole table was walked through");
        assert!(flows > 0 || report.counters.flows.created == 0, "and its flows were found");
        assert_eq!(report.reloads, 19);
        assert!(report.frames_balance);
        (report, calls)
    })
}

#[test]
fn a_worker_on_ports_in_memory_allocates_nothing() {
    let frames = (0..256).map(|_| Frame(Box::new([0; FRAME_BYTES]), 0)).collect();
    let (report, calls) = live([Memory { next: 1 }, Memory { next: 2 }], Frames(frames), || {});
    let counters = report.counters;
    assert!(counters.flows.created > 0 && counters.short > 0 && counters.long > 0, "{counters:?}");
    assert!(counters.flows.table_full > 0 && counters.dropped.exceeds_mtu > 0, "{counters:?}");
    assert!(counters.untouched.malformed > 0 && counters.untouched.non_ip > 0, "{counters:?}");
    assert_eq!(calls, 0, "calls of the allocator");
}

#[test]
fn a_worker_on_real_ports_allocates_nothing() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let settings = Config::defaults().xdp;
    let (_attachments, ports, frames) = line.gateway.enter(|| {
        let attach = |name| {
            Attachment::attach(name, settings.attach, settings.frame_bytes, 1).expect("it is free")
        };
        let (lan, wan) = (attach("lan"), attach("wan"));
        let (ports, frames) = xdp::open(&lan, &wan, 0, &settings).expect("it is free");
        ([lan, wan], ports, frames)
    });
    let (report, calls) = live(ports, frames, || {
        wait_for("packets to pass", Duration::from_secs(20), || line.answers());
        line.client.run(&["ping", "-n", "-q", "-c", "200", "-i", "0.002", SERVER]);
        // Longer than the far port can send.
        line.client.try_run(&[
            "ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "1", "-s", "1400", SERVER,
        ]);
    });
    assert!(report.counters.received > 400 && report.counters.dropped.exceeds_mtu > 0);
    assert_eq!(calls, 0, "calls of the allocator");
}

/// A packet goes through a tunnel and back, is cut up, is complained of and is answered.
#[test]
fn a_tunnel_allocates_nothing() {
    let [out, back]: [Tunnel; 2] =
        [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")].map(|(local, remote)| Tunnel {
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            key: Some(7),
            sequence: true,
            checksum: true,
            ttl: 64,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: None,
            udp: true,
        });
    let everyone = [("0.0.0.0".parse().expect("an address"), 0)];
    let everyone = Prefixes::new(&everyone).expect("a prefix");
    let numbers = Numbers::default();
    let encapsulator = Encapsulator::new(&out, numbers.clone());
    let mut decapsulator = Decapsulator::new(&[back], everyone.clone(), everyone);
    let mut mtus = PathMtus::default();
    mtus.add(&out, numbers, encapsulator.overhead_bytes() as u16, 1500);
    let mut inner = [0; 14 + 1000];
    inner[14..34].copy_from_slice(b"\x45\0\x03\xe8\0\0\0\0\x40\x06\0\0\x0a\0\0\x01\x0a\x01\0\x01");
    let sum = checksum::sum(&inner[14..34]);
    inner[24..26].copy_from_slice(&(!sum).to_be_bytes());
    let mut storage = [0; FRAME_BYTES];
    let mut frame = [0; FRAME_BYTES];

    let before = CALLS.get();
    for round in 0..1000 {
        storage[..inner.len()].copy_from_slice(&inner);
        let mut buffer = Buffer::new(&mut storage, inner.len());
        let sent = encapsulator.encapsulate(&mut buffer, &[2; 14], round).expect("it is sent");
        let length = icmp::write(
            icmp::Error::FragmentationNeeded { mtu_bytes: 900 },
            &[2; 14],
            [192, 0, 2, 9].into(),
            &buffer[14..],
            &mut frame,
        );
        let complaint = &frame[..length.expect("an error")];
        assert_eq!(mtus.judge(complaint, complaint.len(), 1).is_ok(), round == 0);
        decapsulator.decapsulate(&mut buffer, sent).expect("it is let in");
        assert!(buffer[14..] == inner[14..]);
        let mut fragments = Fragments::new(&buffer, buffer.len(), 500).expect("it may be cut");
        let mut count = 0;
        while fragments.write_next(&mut frame).is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
    }
    assert_eq!(CALLS.get() - before, 0, "calls of the allocator");
    decapsulator.settle();
    assert_eq!((decapsulator.accepted(), decapsulator.sequence(0).received), (1000, 1000));
}

const FRAME_BYTES: usize = 2048;

/// Free frames.
struct Frames(Vec<Frame>);

/// A frame with a packet of this many bytes.
struct Frame(Box<[u8; FRAME_BYTES]>, usize);

/// A port on which packets of all kinds come in, and on which whatever is sent is gone.
struct Memory {
    next: u64,
}

impl Memory {
    /// xorshift64.
    fn random(&mut self) -> [u8; 8] {
        self.next ^= self.next << 13;
        self.next ^= self.next >> 7;
        self.next ^= self.next << 17;
        self.next.to_be_bytes()
    }

    fn packet(&mut self, bytes: &mut [u8; FRAME_BYTES]) -> usize {
        let random = self.random();
        // Ethernet, IPv4 of 46 or 1186 bytes, TCP with ACK, one of 4096 flows and some more often.
        let long = random[0] < 16;
        let total: u16 = if long { 1186 } else { 46 };
        bytes[12..14].copy_from_slice(&[0x08, if random[0] == 255 { 0x06 } else { 0 }]);
        bytes[14..34].copy_from_slice(b"\x45\0\0\0\0\0\x40\0\x40\x06\0\0\x0a\0\0\0\xc0\0\x02\x01");
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        let flow = [random[1] & 15, if random[2] < 128 { 0 } else { random[3] }];
        bytes[28..30].copy_from_slice(&flow);
        bytes[34..54]
            .copy_from_slice(b"\0\x01\x01\xbb\0\0\0\x01\0\0\0\x01\x50\x10\xff\xff\0\0\0\0");
        // A header that says it is longer than its packet.
        if random[0] == 254 {
            bytes[14] = 0x4f;
            bytes[16..18].copy_from_slice(&[0, 21]);
        }
        14 + usize::from(total)
    }
}

impl Port for Memory {
    type Frame = Frame;
    type Frames = Frames;
    type Statistics = ();

    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst<Frame>, limit: usize) {
        // Now and then nothing, so that the worker sleeps too.
        let packets = usize::from(self.random()[0]).saturating_sub(128).min(limit);
        for _ in 0..packets {
            let mut frame = frames.0.pop().expect("more than two bursts");
            frame.1 = self.packet(&mut frame.0);
            burst.push(frame);
        }
    }

    fn transmit_room(&self) -> usize {
        FRAME_BYTES
    }

    fn transmit(&mut self, frames: &mut Frames, burst: &mut Burst<Frame>) {
        frames.0.extend(burst.drain(..));
    }

    fn maintain(&mut self, _frames: &mut Frames) {}

    fn release(frames: &mut Frames, frame: Frame) {
        frames.0.push(frame);
    }

    fn take(frames: &mut Frames, bytes: usize) -> Option<Frame> {
        let mut frame = frames.0.pop().filter(|_| bytes <= FRAME_BYTES)?;
        frame.1 = bytes;
        Some(frame)
    }

    fn buffer<'a>(_frames: &'a Frames, frame: &'a mut Frame) -> Buffer<'a> {
        let length = frame.1;
        Buffer::new(&mut frame.0[..], length)
    }

    fn set_length(_frames: &Frames, frame: &mut Frame, bytes: usize) {
        frame.1 = bytes;
    }

    fn wait(_ports: &mut [Self; 2], _bell: Option<BorrowedFd<'_>>, _timeout: Duration) {
        thread::yield_now();
    }

    fn statistics(&self) {}

    fn account(_ports: &[Self; 2], frames: &Frames, in_process: usize) -> FrameAccount {
        FrameAccount { total: 256, free: frames.0.len(), in_process, ..FrameAccount::default() }
    }
}
