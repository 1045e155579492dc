//! The sandbox from inside: each deed is done by a thread of a process of its own, and the process dies of
//! it or does not.
//!
//! The process is this test program once more, told to run nothing but [`culprit`] or [`gateway`].

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, io, process, ptr, thread};

use dataplane::port::{Burst, Port};
use dataplane::sandbox::{self, Bells};
use dataplane::xdp::{self, Attachment, XdpPort};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction};
use nix::sys::socket::{MsgFlags, UnixAddr, recv, send, sendto};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use crate::lab::{Lab, Line, wait_for};

/// Names the deed to the process that does it.
const DEED: &str = "LANESPLIT_TEST_DEED";
const BOUND: Duration = Duration::from_secs(20);
const DONTWAIT: MsgFlags = MsgFlags::MSG_DONTWAIT;

/// What the deeds need, opened before the door is shut.
struct Scene {
    socket: UnixDatagram,
    address: UnixAddr,
    file: Mutex<Option<File>>,
    memory: Mutex<Option<Vec<u8>>>,
    /// Its own, and another worker's.
    bells: [EventFd; 2],
}

impl Scene {
    fn wait(&self, sockets: usize, mask: Option<SigSet>) {
        let mut waited = Vec::with_capacity(sockets);
        waited.resize_with(sockets, || PollFd::new(self.socket.as_fd(), PollFlags::POLLIN));
        let _ = ppoll(&mut waited, Some(TimeSpec::from(Duration::ZERO)), mask);
    }
}

type Deed = (&'static str, fn(&Scene));

/// What a worker does, to its end.
const ALLOWED: [Deed; 6] = [
    ("waking", |scene| {
        let _ = send(scene.socket.as_raw_fd(), &[], DONTWAIT);
        let _ = recv(scene.socket.as_raw_fd(), &mut [], DONTWAIT);
    }),
    ("sleeping", |scene| scene.wait(3, None)),
    ("waking others and being woken", |scene| {
        scene.bells[1].write(1).expect("it is another's");
        scene.bells[0].read().expect_err("nobody rang it");
    }),
    ("asking for the time", |_| assert!(Instant::now().elapsed() < BOUND)),
    ("yielding", |_| thread::yield_now()),
    ("a word on standard error", |_| eprintln!("a word")),
];

/// What it does not do, among it what it does with other arguments.
const FORBIDDEN: [Deed; 24] = [
    ("opening a file", |_| ignore(File::open("/dev/null"))),
    ("closing a file", |scene| ignore(scene.file.lock().expect("untouched").take())),
    ("opening a socket", |_| ignore(UdpSocket::bind("127.0.0.1:0"))),
    ("starting a program", |_| ignore(Command::new("true").status())),
    ("starting a thread", |_| ignore(thread::Builder::new().spawn(|| ()))),
    ("sending bytes", |scene| ignore(send(scene.socket.as_raw_fd(), b"x", DONTWAIT))),
    ("sending with other flags", |scene| {
        ignore(send(scene.socket.as_raw_fd(), &[], MsgFlags::MSG_OOB));
    }),
    ("sending to an address", |scene| {
        ignore(sendto(scene.socket.as_raw_fd(), &[], &scene.address, DONTWAIT));
    }),
    ("receiving bytes", |scene| ignore(recv(scene.socket.as_raw_fd(), &mut [0; 8], DONTWAIT))),
    ("receiving with other flags", |scene| {
        ignore(recv(scene.socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | DONTWAIT));
    }),
    ("waiting for four descriptors", |scene| scene.wait(4, None)),
    ("ringing its own bell", |scene| ignore(scene.bells[0].write(1))),
    ("reading another's bell", |scene| ignore(scene.bells[1].read())),
    ("more than a ring", |scene| ignore(nix::unistd::write(scene.bells[1].as_fd(), &[0; 16]))),
    ("waiting with a signal mask", |scene| scene.wait(2, Some(SigSet::empty()))),
    ("asking for another option", |scene| ignore(scene.socket.take_error())),
    ("asking for another clock", |_| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one `timespec`, which is ours.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    }),
    ("mapping memory", |_| ignore(std::hint::black_box(vec![1_u8; 8 << 20]))),
    ("unmapping much memory", |scene| ignore(scene.memory.lock().expect("untouched").take())),
    ("writing to standard output", |_| ignore(nix::unistd::write(io::stdout(), b"x"))),
    ("reading", |scene| {
        let file = scene.file.lock().expect("untouched");
        ignore(nix::unistd::read(file.as_ref().expect("open"), &mut [0; 8]));
    }),
    ("another signal to this thread", |_| ignore(raise(Signal::SIGUSR1))),
    ("a signal to another process", |_| ignore(kill(Pid::from_raw(1), None))),
    ("catching a signal", |_| {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: to ignore a signal runs no code of ours.
        let _ = unsafe { sigaction(Signal::SIGUSR1, &ignore) };
    }),
];

/// Whatever comes of a deed, if the process is still there.
fn ignore<T>(_: T) {}

/// With the signal that it ends by.
type Crash = (&'static str, Signal, fn(&Scene));

/// How a worker dies of its own mistakes: by what they are called.
const DEADLY: [Crash; 2] = [
    ("a panic", Signal::SIGABRT, |_| panic!("last words")),
    ("a segmentation fault", Signal::SIGSEGV, |_| {
        let nowhere = ptr::without_provenance_mut::<u8>(64);
        // SAFETY: none. Nothing is mapped there, and the process is to end here.
        unsafe { nowhere.write_volatile(1) };
    }),
];

#[test]
fn what_a_worker_does_is_allowed() {
    for (name, _) in ALLOWED {
        let output = commit(name);
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

#[test]
fn every_other_call_ends_the_process() {
    for (name, _) in FORBIDDEN {
        let output = commit(name);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{name}: {output:?}");
    }
}

#[test]
fn a_crash_is_called_what_it_is() {
    for (name, signal, _) in DEADLY {
        let output = commit(name);
        assert_eq!(output.status.signal(), Some(signal as i32), "{name}: {output:?}");
    }
    let panic = commit("a panic");
    assert!(String::from_utf8_lossy(&panic.stderr).contains("last words"), "{panic:?}");
}

/// Has another process do it.
fn commit(deed: &str) -> Output {
    let program = env::current_exe().expect("this program");
    Command::new(program)
        .args(["misdeeds::culprit", "--exact", "--ignored", "--nocapture"])
        .env(DEED, deed)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("it starts")
}

#[test]
#[ignore = "the part of another process"]
fn culprit() {
    let Ok(wanted) = env::var(DEED) else { return };
    let (socket, _other) = UnixDatagram::pair().expect("possible");
    let scene = Arc::new(Scene {
        socket,
        address: UnixAddr::new_abstract(b"nobody").expect("short"),
        file: Mutex::new(Some(File::open("/dev/zero").expect("it is there"))),
        memory: Mutex::new(Some(vec![1; 8 << 20])),
        bells: [(); 2].map(|()| {
            let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
            EventFd::from_flags(flags).expect("event descriptors")
        }),
    });
    let deadly = DEADLY.into_iter().map(|(name, _, deed)| (name, deed));
    let mut deeds = ALLOWED.into_iter().chain(FORBIDDEN).chain(deadly);
    let (_, deed) = deeds.find(|(name, _)| *name == wanted).expect("it is in a list");
    abort_on_panic();
    let seen = Arc::clone(&scene);
    let [own, other] = scene.bells.each_ref().map(|bell| bell.as_raw_fd());
    let worker = thread::spawn(move || {
        let bells = Bells { own: Some(own), others: vec![other] };
        sandbox::enter(&bells).expect("root may");
        deed(&seen);
    });
    worker.join().expect("it survived");
}

/// As the program does.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::abort();
    }));
}

#[test]
fn a_violation_costs_the_gateway_and_the_bridge_carries_on() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.bridge();
    wait_for("the bridge", BOUND, || line.answers());
    let program = env::current_exe().expect("this program");
    let mut gateway = Command::new("ip")
        .args(["netns", "exec", line.gateway.name()])
        .arg(program)
        .args(["misdeeds::gateway", "--exact", "--ignored", "--nocapture"])
        .env(DEED, "gateway")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ip is installed");
    let has_program = || line.gateway.run(&["ip", "link", "show", "dev", "wan"]).contains("xdp");
    wait_for("the gateway to begin", BOUND, has_program);
    wait_for("an answer through the gateway", BOUND, || line.answers());
    assert!(gateway.try_wait().expect("it is ours").is_none(), "it forwards");
    let mut order = gateway.stdin.take().expect("piped");
    order.write_all(b"now\n").expect("it listens");
    let status = gateway.wait().expect("it is ours");
    assert_eq!(status.signal(), Some(libc::SIGSYS));
    assert!(!has_program(), "the program went with the process");
    assert!(line.answers(), "the bridge carries on");
}

/// A small gateway whose worker opens a file when told to.
#[test]
#[ignore = "the part of another process"]
fn gateway() {
    if env::var(DEED).is_err() {
        return;
    }
    let settings = dataplane::config::Config::defaults().xdp;
    let attach = |name| {
        Attachment::attach(name, settings.attach, settings.frame_bytes, 1).expect("it is free")
    };
    let (lan, wan) = (attach("lan"), attach("wan"));
    let (mut ports, mut frames) = xdp::open(&lan, &wan, 0, &settings).expect("it is free");
    let is_told = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_told);
    thread::spawn(move || {
        sandbox::enter(&Bells::default()).expect("root may");
        loop {
            for ingress in 0..2 {
                let room = ports[1 - ingress].transmit_room().min(64);
                let mut burst = Burst::new();
                ports[ingress].receive(&mut frames, &mut burst, room);
                ports[1 - ingress].transmit(&mut frames, &mut burst);
                ports[ingress].maintain(&mut frames);
            }
            XdpPort::wait(&mut ports, None, Duration::from_millis(10));
            if told.load(Ordering::Relaxed) {
                drop(File::open("/etc/passwd"));
            }
        }
    });
    io::stdin().read_line(&mut String::new()).expect("it is a pipe");
    is_told.store(true, Ordering::Relaxed);
    thread::sleep(BOUND);
}
