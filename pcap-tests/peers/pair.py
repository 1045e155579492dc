"""Two routed gateways between the generator and the sink, and the account of every frame on the way.

    generator                gateway                    far                     sink
    10.1.x.x ----------- lan | near | wan -------- wan | far | lan ----------- 10.2.0.2
                  10.1.0.1            192.0.2.1  192.0.2.2     10.2.0.1

Neighbours are static and nobody else speaks, so that what an interface counts are the generator's packets.
"""

from network import MACS, WORKER_CORE

ROLES = ("gateway", "far")
KEYS = {"short": 1, "long": 2}
# `sequence` has the far gateway count what was lost between the two. Workers that share a core wait for each other
# for a time slice of some milliseconds, and with the default rings the other's overflow meanwhile.
OPTIONS = "[gre]\nsequence = true\n"
RING_ENTRIES = 8192


def route(network):
    """Both kernels forward: all there is to the kernels' pair, and what lanesplitd's neighbours and routes are."""
    for role, site, far_site, wan, next_hop, next_mac, host, host_mac in (
            ("gateway", 1, 2, "192.0.2.1", "192.0.2.2", "far-wan", "10.1.0.2", "generator"),
            ("far", 2, 1, "192.0.2.2", "192.0.2.1", "wan", "10.2.0.2", "sink")):
        network.sysctl(role, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.lan.rp_filter=0", "net.ipv4.conf.wan.rp_filter=0")
        network.ip("address", "add", f"10.{site}.0.1/16", "dev", "lan", role=role)
        network.ip("address", "add", f"{wan}/24", "dev", "wan", role=role)
        network.ip("route", "add", f"10.{far_site}.0.0/16", "via", next_hop, role=role)
        for address, name, port in ((next_hop, next_mac, "wan"), (host, host_mac, "lan")):
            network.ip("neighbour", "replace", address, "lladdr", MACS[name], "dev", port, "nud", "permanent",
                role=role)


def configuration(role, control):
    """A gateway's, as TOML."""
    ends = [(1, "192.0.2.1"), (2, "192.0.2.2")]
    (site, local), (far_site, remote) = ends if role == "gateway" else reversed(ends)
    lanes = "".join(f'[lanes.{lane}.gre]\nlocal = "{local}"\nremote = "{remote}"\nkey = {key}\n'
        for lane, key in KEYS.items())
    return (f'mode = "routed"\n[ports]\nlan = "lan"\nwan = "wan"\nring_entries = {RING_ENTRIES}\n'
        f'[workers]\ncores = [{WORKER_CORE}]\n'
        f'[routed]\nlocal_prefixes = ["10.{site}.0.0/16"]\nremote_prefixes = ["10.{far_site}.0.0/16"]\n'
        f'{lanes}{OPTIONS}[control]\nsocket = "{control}"\n')


def passed(network):
    """Frames at each point of the way. What a cable or the sink's queue refused is counted by the sender."""
    ports = {(role, port): network.counted(role, port) for role in ROLES for port in ("lan", "wan")}
    return {
        "entered_near": ports["gateway", "lan"]["rx"]["packets"],
        "left_near": ports["gateway", "wan"]["tx"]["packets"],
        "refused_between": ports["gateway", "wan"]["tx"]["dropped"],
        "entered_far": ports["far", "wan"]["rx"]["packets"],
        "left_far": ports["far", "lan"]["tx"]["packets"],
        "refused_by_sink": ports["far", "lan"]["tx"]["dropped"],
    }


def wrong_accounts(frames, arrived, near, far):
    """What is wrong with the gateways' accounts, in words: every frame that entered one was forwarded, dropped for a
    reason, left to its kernel, or lost where the kernel counts it; and the two agree on each lane."""
    pairs = [("entered and left the cable between", frames["left_near"], frames["entered_far"]),
        ("left the far gateway and arrived", frames["left_far"], arrived)]
    for name, status, port, entered, left in (
            ("near", near, 0, frames["entered_near"], frames["left_near"] + frames["refused_between"]),
            ("far", far, 1, frames["entered_far"], frames["left_far"] + frames["refused_by_sink"])):
        total = status["total"]
        pairs += [(f"entered the {name} gateway and seen or missed by its worker", entered,
                total["received"] + missed(status, port)),
            (f"seen by the {name} worker and forwarded or dropped", total["received"],
                total["forwarded"] + sum(total["dropped"].values()) + total.get("waiting", 0)),
            (f"sent by the {name} worker and left", frames_sent(total), left)]
    for lane, sent, received in zip(KEYS, near["total"]["routed"]["lanes"], far["total"]["routed"]["lanes"]):
        kept = sent["sent"] - received["received"]
        if not 0 <= received["sequence"]["lost"] <= kept:
            pairs.append((f"missing in the {lane} lane and lost by its sequence numbers", kept,
                received["sequence"]["lost"]))
    pairs += [("let in from both lanes and forwarded by the far worker", far["total"]["forwarded"],
            sum(lane["received"] for lane in far["total"]["routed"]["lanes"])),
        ("classified by the near worker and put into lanes", near["total"]["short"] + near["total"]["long"],
            sum(lane["sent"] for lane in near["total"]["routed"]["lanes"]))]
    return [f"{what}: {one} and {other}" for what, one, other in pairs if one != other]


def missed(status, port):
    """Frames of a port that no worker saw: the kernel dropped them, or they were left to it."""
    sockets = (worker["ports"][port] for worker in status["workers"])
    return sum(socket["rx_ring_full"] + socket["rx_dropped"] for socket in sockets) + \
        sum(status["ports"][("lan", "wan")[port]]["kernel"].values())


def frames_sent(total):
    routed = total["routed"]
    errors = sum(routed["icmp"][kind] for kind in ("time_exceeded", "too_big", "unreachable"))
    return total["forwarded"] - routed["fragmented"] + routed["fragments"] + errors - routed["not_sent"]


def wrong_lanes(status, flows, threshold):
    """The rule, as far as sums tell: a flow that became long had so many short packets, any other no more."""
    total, lives = status["total"], status["total"]["flows"]
    least, most = threshold * lives["promoted"], threshold * lives["created"]
    if not least <= total["short"] <= most or lives["created"] > flows or lives["table_full"]:
        return [f"{total['short']} packets short and {total['long']} long of {lives}"]
    return []
