"""Generator, gateways and sink in network namespaces, the flood and the end of the line."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys

import bpf

GENERATOR_CORE, WORKER_CORE = 0, 1
FRAME_BYTES = 60
# The generator's packets have it.
FIRST_TIME_TO_LIVE = 64
# The generator's, between two looks at the clock.
BATCH = 64
MACS = {"generator": "02:00:00:00:01:01", "lan": "02:00:00:00:02:01", "wan": "02:00:00:00:02:02",
    "sink": "02:00:00:00:03:01", "far-lan": "02:00:00:00:04:01", "far-wan": "02:00:00:00:04:02"}
PRIORITY = -10
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def inside(namespace):
    """This thread is in a network namespace for a while."""
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        if LIBC.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        try:
            yield
        finally:
            LIBC.setns(home.fileno(), CLONE_NEWNET)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def come_first():
    """Where the kernel shares the cores between sessions (autogroup), priorities count within one only. What is
    built and installed gets it too, for it is short."""
    with contextlib.suppress(OSError):
        if os.getpid() != os.getsid(0):
            os.setsid()
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(PRIORITY))


class Network:
    """Generator, gateway and sink, and all that runs in them, until this is left. With a pair of gateways there is
    `far` between the gateway and the sink, the other way round: its LAN port is the sink's."""

    def __init__(self, folder, programs, pair=False, queues=1):
        self.folder, self.programs, self.pair, self.queues = folder, programs, pair, queues
        self.name = f"lanesplit-peers-{os.getpid()}"
        self.roles = ["generator", "gateway", "sink"] + ["far"] * pair
        self.children, self.objects = [], []

    def __enter__(self):
        try:
            for role in self.roles:
                run("ip", "netns", "add", self.of(role))
                self.sysctl(role, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
            self.cable(("generator", "eth0"), ("gateway", "lan"))
            if self.pair:
                self.cable(("gateway", "wan"), ("far", "wan"))
                self.cable(("sink", "eth0"), ("far", "lan"))
            else:
                self.cable(("sink", "eth0"), ("gateway", "wan"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """One thing that is gone already must not keep the others, nor a second signal."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        for child in self.children:
            with contextlib.suppress(OSError):
                child.kill()
                child.wait()
        for role in self.roles:
            if os.path.exists(f"/run/netns/{self.of(role)}"):
                with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
                    run("ip", "netns", "delete", self.of(role))
        for loaded in self.objects:
            loaded.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def of(self, role):
        return f"{self.name}-{role}"

    def sysctl(self, role, *settings):
        run("ip", "netns", "exec", self.of(role), "sysctl", "-q", "-w", *settings)

    def cable(self, one, other):
        queues = ("numrxqueues", str(self.queues), "numtxqueues", str(self.queues))
        run("ip", "link", "add", one[1], "netns", self.of(one[0]), "address", mac(*one), *queues, "type", "veth",
            "peer", "name", other[1], "netns", self.of(other[0]), "address", mac(*other), *queues)
        for role, interface in (one, other):
            self.offloads(role, interface, "tx", "tso", "gso", "gro", "sg", "rxvlan", "txvlan")
            run("ip", "-n", self.of(role), "link", "set", "dev", interface, "up")

    def offloads(self, role, interface, *features, value="off"):
        arguments = [word for feature in features for word in (feature, value)]
        run("ip", "netns", "exec", self.of(role), "ethtool", "-K", interface, *arguments)

    def ip(self, *arguments, role="gateway"):
        run("ip", "-n", self.of(role), *arguments)

    def index(self, role, interface):
        with inside(self.of(role)):
            return socket.if_nametoindex(interface)

    def load(self, program, settings=()):
        loaded = bpf.Object(self.programs[program], settings)
        self.objects.append(loaded)
        return loaded

    def attach_xdp(self, role, interface, program, name, settings=()):
        loaded, index = self.load(program, settings), self.index(role, interface)
        with inside(self.of(role)):
            loaded.attach_xdp(name, index)
        return loaded

    def thread(self, interface, core):
        """The port's receive loop becomes a kernel thread on a core."""
        before = napi_threads(interface)
        run("ip", "netns", "exec", self.of("gateway"), "sh", "-c",
            f"echo 1 >/sys/class/net/{interface}/threaded")
        started = napi_threads(interface) - before
        if not started:
            raise RuntimeError(f"no thread for the receive loop of {interface}")
        for thread in started:
            os.sched_setaffinity(thread, {core})
            os.setpriority(os.PRIO_PROCESS, thread, PRIORITY)

    def spawn(self, *command, what, role="gateway"):
        log = open(os.path.join(self.folder, f"{what}.log"), "w+")
        child = subprocess.Popen(["ip", "netns", "exec", self.of(role), *command], stdin=subprocess.PIPE,
            stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        child.log = log
        self.children.append(child)
        return child

    def counted(self, role, interface):
        """The kernel's counters of an interface: {"rx": {"packets", "dropped", ...}, "tx": {...}}."""
        (link,) = json.loads(run("ip", "-json", "-s", "-n", self.of(role), "link", "show", "dev", interface))
        return link["stats64"]


def mac(role, interface):
    """A port is known by its name, a host by its role."""
    return MACS[{"gateway": interface, "far": f"far-{interface}"}.get(role, role)]


def napi_threads(interface):
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/comm") as file:
            if file.read().startswith(f"napi/{interface}-"):
                found.add(int(process))
    return found


class Generator:
    """Sends from its start until it is stopped."""

    def __init__(self, network, flows, destination):
        octets = lambda name: bytes.fromhex(MACS[name].replace(":", ""))  # noqa: E731
        index = network.index("generator", "eth0")
        self.network, self.pid = network, None
        self.loaded = network.load("generator", {
            ".data.settings": octets(destination) + octets("generator") + struct.pack("II", index, flows),
            ".data.state": struct.pack("QQQ", 0, 0x9E3779B97F4A7C15, 0)})

    def start(self, mpps=0.0):
        self.loaded.write(".data.pace", struct.pack("Q", int(BATCH * 1000 / mpps) if mpps else 0))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                die_with_parent()
                os.sched_setaffinity(0, {GENERATOR_CORE})
                with inside(self.network.of("generator")):
                    self.loaded.run_live_frames("generate", FRAME_BYTES)
            except BaseException as error:
                say(f"the generator failed: {error}")
                os._exit(1)
            os._exit(0)
        self.network.children.append(self)

    def sent(self):
        return struct.unpack("QQQ", self.loaded.read(".data.state"))[0]

    def stop(self):
        self.kill()
        self.wait()
        self.network.children.remove(self)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        os.waitpid(self.pid, 0)


class Sink:
    """Counts and drops, "tc" at tc ingress or "xdp" in XDP. Every packet must have come over as many `hops`. A
    redirect into it (`xdp_frames`) needs a receive loop there, which XDP brings, and GRO too."""

    NAMES = ("packets", "short", "long", "other", "wrong_checksums", "wrong_hops")

    def __init__(self, network, kind, xdp_frames, hops):
        settings = {".data.settings": struct.pack("I", FIRST_TIME_TO_LIVE - hops)}
        if kind == "xdp":
            self.loaded = network.attach_xdp("sink", "eth0", "sink", "at_xdp", settings)
            return
        if xdp_frames:
            network.offloads("sink", "eth0", "gro", value="on")
        self.loaded, index = network.load("sink", settings), network.index("sink", "eth0")
        with inside(network.of("sink")):
            self.loaded.attach_tc("at_tc", index)

    def counted(self):
        return dict(zip(self.NAMES, struct.unpack("QQQQQQ", self.loaded.read(".data.counters"))))

    def sample(self):
        """(short, long) packets of some flows."""
        return [struct.unpack("II", value) for value in self.loaded.values("sample")]
