"""Network namespaces: the rack and its networks, a second host on the machines' network, a place for a region.

    region ──10.79.0.0/24── rack ─ br0     10.77.0.0/24  machines, and "client" (a host that is not ours)
     (option)                    └ br-oob  10.78.0.0/24  BMCs, one address a machine
"""

import ctypes
import os
import re
import signal
import socket
import threading
import time

from .process import run

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_RUN_NETNS = "/run/netns"
_PREFIX = re.compile(r"^sy(\d+)-(rack|client|region)$")
TAPS = 10


def _setns(fd):
    if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def socket_in(namespace, *args):
    """A socket of the namespace, for use by this program (None: of the host)."""
    if namespace is None:
        return socket.socket(*args)
    # A namespace is a property of the thread: go there, make the socket, come back.
    home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"{_RUN_NETNS}/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                return socket.socket(*args)
            finally:
                _setns(home)
        finally:
            os.close(there)
    finally:
        os.close(home)


def _delete(namespace):
    """End what still runs in a namespace of ours, and remove it."""
    for pid in run(["ip", "netns", "pids", namespace]).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    run(["ip", "netns", "del", namespace])


def sweep():
    """Remove namespaces of labs whose program is gone (it was killed before it could tidy up)."""
    if not os.path.isdir(_RUN_NETNS):
        return
    for name in os.listdir(_RUN_NETNS):
        match = _PREFIX.match(name)
        # Our own number: left by an earlier program that had it; we have not made ours yet.
        if match and (match[1] == str(os.getpid()) or not os.path.exists(f"/proc/{match[1]}")):
            _delete(name)


class Net:
    """The namespaces of one lab. Names carry the process id, so labs run beside each other."""

    gateway = "10.77.0.1"
    machines = "10.77.0.0/24"
    bmc_gateway = "10.78.0.1"
    region_address = "10.79.0.1"
    rack_address = "10.79.0.2"

    def __init__(self, region=False):
        sweep()
        prefix = f"sy{os.getpid()}"
        self.rack = f"{prefix}-rack"
        self.client = f"{prefix}-client"
        self.region = f"{prefix}-region" if region else None
        self._made = []
        try:
            self._up()
        except BaseException:
            self.close()
            raise

    def _up(self):
        for name in filter(None, (self.rack, self.client, self.region)):
            run(["ip", "netns", "add", name])
            self._made.append(name)
            self._ip(name, "link set lo up")
        for bridge in ("br0", "br-oob"):
            # No spanning tree and no forwarding delay: a port forwards at once, or firmware gives up on DHCP.
            # No multicast snooping: there is no querier, and it would prune IPv6 neighbour discovery.
            self._ip(self.rack, f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self._ip(self.rack, f"addr add {self.gateway}/24 dev br0")
        self._ip(self.rack, "-6 addr add fd77::1/64 dev br0 nodad")
        self._ip(self.rack, f"addr add {self.bmc_gateway}/24 dev br-oob")
        for i in range(1, TAPS + 1):
            self._ip(self.rack, f"tuntap add tap{i} mode tap")
            self._ip(self.rack, f"link set tap{i} master br0 up")
            self._ip(self.rack, f"addr add {self.bmc_address(i)}/24 dev br-oob")
        self._ip(self.rack, f"link add client type veth peer name eth0 netns {self.client}")
        self._ip(self.rack, "link set client master br0 up")
        for bridge in ("br0", "br-oob"):
            self._ip(self.rack, f"link set {bridge} up")
        self._ip(self.client, "link set eth0 up")
        # Raw-socket DHCP clients verify UDP checksums, and over a veth nobody fills them in.
        for namespace, device in ((self.rack, "br0"), (self.rack, "client"), (self.client, "eth0")):
            run(self.command(namespace, ["ethtool", "-K", device, "tx", "off"]))
        if self.region:
            self._ip(self.rack, f"link add to-region type veth peer name eth0 netns {self.region}")
            self._ip(self.rack, f"addr add {self.rack_address}/24 dev to-region")
            self._ip(self.rack, "link set to-region up")
            self._ip(self.region, f"addr add {self.region_address}/24 dev eth0")
            self._ip(self.region, "link set eth0 up")

    @staticmethod
    def _ip(namespace, arguments):
        run(["ip", "-n", namespace, *arguments.split()])

    @staticmethod
    def command(namespace, argv):
        """`argv` made to run inside a namespace. The process id stays that of the program itself."""
        return ["ip", "netns", "exec", namespace, *argv]

    @staticmethod
    def bmc_address(index):
        """Address of the BMC of machine number `index`, on br-oob."""
        return f"10.78.0.{100 + index}"

    def close(self):
        """Remove the namespaces; bridges, taps and veths go with them."""
        while self._made:
            name = self._made.pop()
            for attempt in range(5):
                try:
                    _delete(name)
                    break
                except RuntimeError:
                    if attempt == 4:
                        raise
                    time.sleep(0.2)
