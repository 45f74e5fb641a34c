"""Packets on a wire: captured by tcpdump, read here, and told apart by what a host could take them for."""

import collections
import dataclasses
import ipaddress
import struct

from .netns import Net
from .process import spawn, stop
from .steps import NotYet, wait_for

# What a host could take for configuration, by name.
CONFIGURATION = (
    "DHCPv4 reply", "proxyDHCP reply", "DHCPv6 reply", "router advertisement", "ICMPv6 redirect", "ICMPv4 redirect",
    "ICMPv4 router advertisement", "DNS answer", "mDNS answer", "LLMNR answer", "NetBIOS answer", "SSDP announcement",
    "NTP broadcast", "SLP answer", "LLDP",
)


class Capture:
    """tcpdump on a device of a namespace, from its start until `packets` is called."""

    def __init__(self, lab, namespace, device, name="capture"):
        self.path = lab.directory / f"{name}.pcap"
        self._log = lab.directory / f"{name}.log"
        with open(self._log, "ab") as log:
            # Read and written packet by packet (or its end loses the last second), and as root: the directory is nobody else's.
            self._child = spawn(Net.command(namespace, ["tcpdump", "-i", device, "-n", "-s", "0", "--immediate-mode", "-U", "-Z", "root", "-w", self.path]),
                                stdout=log, stderr=log)
        lab.defer(self.close)
        wait_for(f"tcpdump on {device}", 10, self._listens, interval=0.05)

    def packets(self):
        """End the capture; what it saw."""
        self.close()
        return [parse(frame) for frame in frames(self.path.read_bytes())]

    def wait(self, what, limit):
        """Wait until a packet of this kind was seen."""

        def check():
            seen = count(map(parse, frames(self.path.read_bytes(), is_growing=True)))
            if what not in seen:
                raise NotYet(str(seen))
            return True

        wait_for(f"a {what} on the wire", limit, check, interval=0.1)

    def close(self):
        stop(self._child)

    def _listens(self):
        if self._child.poll() is not None:
            raise RuntimeError(f"tcpdump ended with {self._child.returncode}: {self._log.read_text(errors='replace')}")
        if "listening on" not in self._log.read_text(errors="replace"):
            raise NotYet("it does not listen yet")
        return True


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet: who sent it, and what it is in words (one of CONFIGURATION, or something harmless)."""

    source_mac: str
    source: str
    what: str

    @property
    def is_configuration(self):
        """Whether a host could take it for configuration."""
        return self.what in CONFIGURATION


def count(packets):
    """How many of what."""
    return dict(sorted(collections.Counter(p.what for p in packets).items()))


def frames(data, is_growing=False):
    """The frames of a capture file (pcap; draft-ietf-opsawg-pcap §4) with Ethernet in it. The last one of a file that is
    still written to may be there in part."""
    if is_growing and len(data) < 24:
        return
    order = {0xA1B2C3D4: "<", 0xA1B23C4D: "<", 0xD4C3B2A1: ">", 0x4D3CB2A1: ">"}.get(struct.unpack_from("<I", data)[0])
    if order is None or struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF != 1:
        raise RuntimeError("not a capture of Ethernet frames")
    at = 24
    while at + 16 <= len(data):
        held, length = struct.unpack_from(order + "II", data, at + 8)
        frame = data[at + 16:at + 16 + held]
        if is_growing and len(frame) < held:
            return
        if held != length or len(frame) != held:
            raise RuntimeError("the capture has a frame that is cut short")
        yield frame
        at += 16 + held


def parse(frame):
    """What a frame is."""
    mac = frame[6:12].hex(":")
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    while kind in (0x8100, 0x88A8) and len(frame) >= at + 4:  # VLAN tags
        kind, at = int.from_bytes(frame[at + 2:at + 4], "big"), at + 4
    rest = frame[at:]
    if kind == 0x0800 and len(rest) >= 20:
        source = str(ipaddress.IPv4Address(rest[12:16]))
        fragment = int.from_bytes(rest[6:8], "big") & 0x1FFF
        payload = rest[(rest[0] & 15) * 4:int.from_bytes(rest[2:4], "big")]
        return Packet(mac, source, "IPv4 fragment" if fragment else _ip(rest[9], payload))
    if kind == 0x86DD and len(rest) >= 40:
        source, protocol, payload = str(ipaddress.IPv6Address(rest[8:24])), rest[6], rest[40:]
        while protocol in (0, 43, 60) and len(payload) >= 8:  # extension headers
            protocol, payload = payload[0], payload[(payload[1] + 1) * 8:]
        return Packet(mac, source, _ip(protocol, payload))
    names = {0x0806: "ARP", 0x88CC: "LLDP"}
    return Packet(mac, "", names.get(kind, f"Ethernet type {kind:#06x}" if kind >= 0x0600 else "IEEE 802.3 frame"))


def _ip(protocol, payload):
    if protocol == 17 and len(payload) >= 8:
        return _udp(*struct.unpack_from(">HH", payload), payload[8:])
    if protocol == 6 and len(payload) >= 4:
        source, destination = struct.unpack_from(">HH", payload)
        return "DNS answer" if source == 53 else f"TCP to port {destination}" if destination < source else f"TCP from port {source}"
    if protocol == 58 and payload:
        names = {128: "echo request", 129: "echo reply", 130: "MLD query", 131: "MLD report", 132: "MLD done", 133: "router solicitation",
                 134: "router advertisement", 135: "neighbour solicitation", 136: "neighbour advertisement", 137: "ICMPv6 redirect",
                 143: "MLD report"}
        return names.get(payload[0], f"ICMPv6 type {payload[0]}")
    if protocol == 1 and payload:
        names = {3: "unreachable", 5: "ICMPv4 redirect", 8: "echo request", 0: "echo reply", 9: "ICMPv4 router advertisement"}
        return names.get(payload[0], f"ICMPv4 type {payload[0]}")
    return {2: "IGMP"}.get(protocol, f"IP protocol {protocol}")


def _udp(source, destination, body):
    if source == 4011:
        return "proxyDHCP reply"
    # A server's packet by its port or by what it says: BOOTREPLY (RFC 951 §3).
    if source in (67, 68) or destination in (67, 68):
        return "DHCPv4 reply" if destination == 68 or body[:1] == b"\x02" else "DHCPv4 request"
    if source == 547 or destination == 546:
        return "DHCPv6 reply"
    if source == 546 or destination == 547:
        return "DHCPv6 request"
    for port, name in ((53, "DNS"), (5353, "mDNS"), (5355, "LLMNR"), (137, "NetBIOS")):
        if port in (source, destination):
            # The QR bit (RFC 1035 §4.1.1).
            return f"{name} answer" if len(body) > 2 and body[2] & 0x80 else f"{name} question"
    if 1900 in (source, destination):
        return "SSDP question" if body.startswith(b"M-SEARCH") else "SSDP announcement"
    if 123 in (source, destination):
        # Mode 5 (RFC 5905 §7.3).
        return "NTP broadcast" if body and body[0] & 7 == 5 else "NTP"
    if source == 427:
        return "SLP answer"
    if destination == 4011:
        return "proxyDHCP request"
    return f"UDP to port {destination}"
