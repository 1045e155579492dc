"""Who is compared, how each is started, and what runs where."""

import json
import os
import struct
import time

import pair
from network import GENERATOR_CORE, MACS, WORKER_CORE, run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Each function starts one contender and returns a function that checks that it still runs and returns what it says
# of itself.


def lanesplitd(policy):
    def start(network):
        return run_gateway(network, "gateway", lambda control:
            f'[ports]\nlan = "lan"\nwan = "wan"\n[workers]\ncores = [{WORKER_CORE}]\n'
            f'[classifier]\npolicy = "{policy}"\n[control]\nsocket = "{control}"\n')

    return start


def lanesplitd_pair(network):
    pair.route(network)
    statuses = [run_gateway(network, role, lambda control, role=role: pair.configuration(role, control))
        for role in pair.ROLES]
    return lambda: [status() for status in statuses]


def run_gateway(network, role, configuration):
    """Waits until it answers; returns a function that asks."""
    control, path = (os.path.join(network.folder, f"{role}.{suffix}") for suffix in ("sock", "toml"))
    with open(path, "w") as file:
        file.write(configuration(control))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    program = os.path.join(target, "release", "lanesplitd")
    child = network.spawn(program, "run", "--config", path, what=role, role=role)

    def status():
        alive(child)
        return json.loads(run(program, "status", "--json", "--config", path))

    wait_for(child, status)
    return status


def testpmd(network):
    ports = [f"--vdev=net_af_xdp{n},iface={name},busy_budget=0" for n, name in enumerate(("lan", "wan"))]
    child = network.spawn("stdbuf", "-oL", "dpdk-testpmd", f"--lcores=0@{GENERATOR_CORE},1@{WORKER_CORE}", "--no-huge", "-m", "1024",
        "--no-pci", "--no-telemetry", "--no-shconf", *ports, "--", "--forward-mode=io", "--nb-cores=1",
        "--total-num-mbufs=65536", "--rxd=2048", "--txd=2048", "--burst=64", "--auto-start", "--no-lsc-interrupt", what="testpmd")

    def ready():
        child.log.flush()
        with open(child.log.name) as log:
            if "Press enter to exit" not in log.read():
                raise RuntimeError("testpmd did not say that it runs")

    wait_for(child, ready)
    return lambda: alive(child)


def bridge(network):
    network.attach_xdp("gateway", "lan", "splitter", "pass")
    bridge_ports(network)
    run("bridge", "-n", network.of("gateway"), "fdb", "replace", MACS["sink"], "dev", "wan", "master", "static")
    return lambda: None


def bridge_ports(network):
    network.ip("link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
    for port in ("lan", "wan"):
        network.ip("link", "set", port, "master", "br0")
    network.ip("link", "set", "br0", "up")


def routing(network):
    network.attach_xdp("gateway", "lan", "splitter", "pass")
    network.sysctl("gateway", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.lan.rp_filter=0")
    network.ip("address", "add", "10.3.0.1/24", "dev", "lan")
    network.ip("address", "add", "10.2.0.1/24", "dev", "wan")
    network.ip("neighbour", "replace", "10.2.0.2", "lladdr", MACS["sink"], "dev", "wan", "nud", "permanent")
    return lambda: None


def routing_pair(network):
    network.attach_xdp("gateway", "lan", "splitter", "pass")
    pair.route(network)
    return lambda: None


def native_xdp(network):
    index = struct.pack("I", network.index("gateway", "wan"))
    # A redirect leaves by wan only when wan's end can take XDP frames too.
    network.attach_xdp("gateway", "lan", "splitter", "split", {".data.settings": index})
    return lambda: None


class Contender:
    """`hops` is how many routers a packet passes; `ours` the contender of ours that it is compared with."""

    def __init__(self, name, what, start, *, goal=None, splits=False, threaded=False, sink="tc", xdp_frames=False,
            hops=0, exact=False, pair=False):
        self.name, self.what, self.start, self.goal, self.splits = name, what, start, goal, splits
        self.threaded, self.sink, self.xdp_frames, self.hops = threaded, sink, xdp_frames, hops
        self.exact, self.pair = exact, pair
        self.ours = "lanesplitd-pair" if pair else "lanesplitd"
        # A router is spoken to, a wire is not.
        self.destination = "lan" if hops else "sink"

    def pinning(self):
        if self.name == "lanesplitd-pair":
            return ("the near gateway's receive copy on core 0 with the generator; both workers share core 1 with "
                "the far gateway's receive copy, both transmits and the sink")
        if self.name.startswith(("lanesplitd", "testpmd")):
            return "receive copy on core 0 with the generator; worker, transmit and sink on core 1"
        both = "both routers" if self.pair else "all of it"
        if self.threaded:
            return f"{both} and the sink on core 1 (threaded NAPI); the generator on core 0"
        return f"{both}, sink and generator on core 0"


def contenders():
    yield Contender("lanesplitd", "splitting", lanesplitd("split"), splits=True, exact=True)
    yield Contender("lanesplitd-none", "the same worker without classification", lanesplitd("none"), goal=0.95)
    yield Contender("testpmd", "DPDK testpmd, net_af_xdp with busy_budget=0, io mode", testpmd, goal=1.1)
    for threaded in (False, True):
        where = "-threaded" if threaded else ""
        yield Contender("bridge" + where, "kernel forwarding: bridge, static entry", bridge, goal=1.0,
            threaded=threaded)
        yield Contender("routing" + where, "kernel forwarding: route, static neighbour", routing, goal=1.0,
            threaded=threaded, hops=1)
        yield Contender("xdp" + where, "native XDP, LRU map, dropped in XDP", native_xdp, goal=1.0, splits=True,
            threaded=threaded, sink="xdp", xdp_frames=True)
        yield Contender("xdp-tc" + where, "native XDP, LRU map, sink as for the others", native_xdp, goal=1.0,
            splits=True, threaded=threaded, xdp_frames=True)
    yield Contender("lanesplitd-pair", f"two routed gateways, GRE lanes with key and sequence number, rings of "
        f"{pair.RING_ENTRIES}", lanesplitd_pair, exact=True, pair=True, hops=2)
    for threaded in (False, True):
        yield Contender("routing-pair" + "-threaded" * threaded, "kernel forwarding twice: routes, static neighbours, "
            "no tunnel", routing_pair, threaded=threaded, pair=True, hops=2)


def alive(child):
    if child.poll() is not None:
        child.log.seek(0)
        raise RuntimeError(f"it ended: {child.log.read()[-600:].strip()}")


def wait_for(child, condition):
    end = time.monotonic() + 15
    while True:
        alive(child)
        try:
            return condition()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
