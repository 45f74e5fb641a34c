"""The product runs as root for a minute, with DHCP off everywhere: it sends nothing that a host could take for configuration."""

import socket
import struct
import time

from lab import Operator, capture
from lab.netns import Net, socket_in
from lab.process import run
from lab.steps import wait_for

MINUTE_S = 60
# What the rack's namespace may send with DHCP off: its kernel's own housekeeping, and answers to who speaks to it.
HARMLESS = {
    "ARP", "neighbour solicitation", "neighbour advertisement", "router solicitation", "MLD report", "MLD query", "IGMP", "echo reply",
    "unreachable", "ICMPv6 type 1",
}
CLIENT = "10.77.0.200"


def arguments(parser):
    parser.add_argument("--seconds", type=int, default=MINUTE_S, help="how long (default %(default)s)")


def scenario(lab, args):
    net = lab.net
    wire = capture.Capture(lab, net.rack, "br0")
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    rack_mac = (run(["ip", "netns", "exec", net.rack, "cat", "/sys/class/net/br0/address"])).strip()
    run(["ip", "-n", net.client, "addr", "add", f"{CLIENT}/24", "dev", "eth0"])
    # IPv6 questions leave from its link-local address, which the kernel first tries out.
    wait_for("a link-local address of the second host", 10, lambda: ready(net.client))
    with lab.steps.step(f"{args.seconds} s with a host that asks for everything"):
        asked = 0
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            asked += ask(net.client)
            time.sleep(max(0.0, min(5.0, end - time.monotonic())))
    packets = wire.packets()
    lab.steps.note(f"{len(packets)} packets seen, {asked} of them questions of the second host: {capture.count(packets)}")
    questions = ("DHCPv4 request", "proxyDHCP request", "DHCPv6 request", "DNS question", "mDNS question", "router solicitation")
    missing = [what for what in questions if what not in capture.count(packets)]
    if missing:
        raise RuntimeError(f"the capture proves nothing: it lacks the second host's own {', '.join(missing)}")
    bad = [p for p in packets if p.is_configuration]
    if bad:
        raise RuntimeError(f"packets that a host could take for configuration: {capture.count(bad)}, from {sorted({p.source_mac for p in bad})}")
    other = [p for p in packets if p.source_mac == rack_mac and p.what not in HARMLESS]
    if other:
        raise RuntimeError(f"the rack sends what nobody has looked at: {capture.count(other)}")

    # The same questions once DHCP is on: that they are answered now shows that they, and this look, are good.
    wire = capture.Capture(lab, net.rack, "br0", name="capture-on")
    operator.serve_dhcp()
    with lab.steps.step("answered once DHCP is on"):
        end = time.monotonic() + 60
        while True:
            asked = ask(net.client, wait=2)
            if asked < 0:
                break
            if time.monotonic() > end:
                raise RuntimeError("DHCP is on, and the second host gets no answer: its questions prove nothing")
    with lab.steps.step("the offer was captured"):
        wire.wait("DHCPv4 reply", 10)
    lab.steps.note(f"with DHCP on: {capture.count(wire.packets())}")


def ready(namespace):
    return "fe80:" in run(["ip", "-n", namespace, "-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative"])


def ask(namespace, wait=0):
    """Ask as a host does that looks for configuration: DHCP, PXE, DHCPv6, DNS, mDNS, routers. Returns how many
    questions; with `wait`, after so many seconds, or -1 when an offer came."""
    # BOOTREQUEST with DISCOVER (RFC 2131 §2), of a PXE client.
    discover = (bytes([1, 1, 6, 0]) + b"quie" + bytes([0, 0, 0x80, 0]) + bytes(16) + bytes.fromhex("525400990001") + bytes(10) + bytes(192)
                + bytes([99, 130, 83, 99, 53, 1, 1, 93, 2, 0, 7, 60, 9]) + b"PXEClient" + bytes([255]))
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x04wpad\x05local\x00" + struct.pack(">HH", 1, 1)
    solicit = bytes([1, 0, 0, 7, 0, 1, 0, 10, 0, 3, 0, 1]) + bytes.fromhex("525400990001") + bytes([0, 3, 0, 12, 0, 0, 0, 1]) + bytes(8)
    sent = 0
    with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as four, socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as dhcp, \
            socket_in(namespace, socket.AF_INET6, socket.SOCK_DGRAM) as six, \
            socket_in(namespace, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        dhcp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        dhcp.bind(("0.0.0.0", 68))
        four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        four.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        six.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for s, data, where in (
            (dhcp, discover, ("255.255.255.255", 67)), (four, discover, (Net.gateway, 4011)), (four, query, (Net.gateway, 53)),
            (four, query, ("224.0.0.251", 5353)), (six, solicit, ("ff02::1:2", 547, 0, 0)), (icmp, bytes([133, 0, 0, 0, 0, 0, 0, 0]), ("ff02::2", 0, 0, 0)),
        ):
            s.sendto(data, where)
            sent += 1
        if wait:
            dhcp.settimeout(wait)
            try:
                answer = dhcp.recv(2048)
            except TimeoutError:
                return sent
            return -1 if answer[:1] == b"\x02" and answer[4:8] == b"quie" else sent
    return sent
