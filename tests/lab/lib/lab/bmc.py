"""BMCs: OpenIPMI's simulator speaks IPMI on the wire; its chassis commands press our machines' buttons.

    ipmi_sim ── runs ──> chassis program (one a BMC) ── unix socket ──> ChassisServer ──> Machine
"""

import os
import re
import socketserver
import sys
import threading

from .netns import Net
from .process import run, spawn, stop
from .steps import NotYet, wait_for

_CHASSIS = """#!{python} -SEI
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({socket!r})
s.sendall(" ".join([{name!r}] + sys.argv[1:]).encode() + b"\\n")
s.shutdown(socket.SHUT_WR)
answer = b""
while chunk := s.recv(4096):
    answer += chunk
if not answer.startswith(b"ok"):
    sys.exit(1)
sys.stdout.write(answer[3:].decode())
"""

_LAN = """name "{name}"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcd{index:02x}
  endlan
  chassis_control "{chassis}"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""

_COMMANDS = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""

_SIM_TO_MACHINE = {"pxe": "net", "default": "disk", "none": None}
_MACHINE_TO_SIM = {v: k for k, v in _SIM_TO_MACHINE.items()}


class ChassisServer:
    """Answers the chassis programs of all BMCs of a lab."""

    def __init__(self, lab):
        self.path = str(lab.directory / "chassis.sock")
        self.bmcs = {}
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                words = self.rfile.readline().decode().split()
                try:
                    self.wfile.write(("ok\n" + outer.bmcs[words[0]].chassis(words[1:])).encode())
                except Exception as e:  # the BMC answers its client with an error; the text is for our log
                    print(f"lab: chassis {words}: {e}", file=sys.stderr)
                    self.wfile.write(b"failed\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(self.path, Handler)
        threading.Thread(target=self._server.serve_forever, name="chassis", daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Bmc:
    """The BMC of a machine: IPMI 1.5 and 2.0 on UDP port 623 of its own address."""

    def __init__(self, lab, machine, user="admin", password="lab-secret"):
        self.lab, self.machine = lab, machine
        self.address = lab.net.bmc_address(machine.index)
        self.user, self.password = user, password
        self.calls = []
        directory = machine.directory / "bmc"
        (directory / "state").mkdir(parents=True)
        chassis = directory / "chassis"
        chassis.write_text(_CHASSIS.format(python=os.path.realpath(sys.executable), socket=lab.chassis.path, name=machine.name))
        chassis.chmod(0o755)
        (directory / "lan.conf").write_text(
            _LAN.format(name=machine.name, address=self.address, index=machine.index, chassis=chassis, user=user, password=password))
        (directory / "cmd.conf").write_text(_COMMANDS)
        lab.chassis.bmcs[machine.name] = self
        with open(directory / "log", "ab") as log:
            self._child = spawn(
                Net.command(lab.net.rack, ["ipmi_sim", "-c", directory / "lan.conf", "-f", directory / "cmd.conf",
                                           "-s", directory / "state", "-n"]), stdout=log, stderr=log)
        wait_for(f"the BMC of {machine.name} to answer", 20, self._answers, interval=0.2)

    def power(self):
        """The power state the BMC tells on the wire: "on" or "off"."""
        text = self.ipmitool("chassis", "power", "status")
        return re.search(r"Chassis Power is (\w+)", text)[1]

    def ipmitool(self, *arguments, interface="lanplus"):
        """Run ipmitool against this BMC, from inside the rack; returns what it printed."""
        # Cipher suite 3 by name: the simulator refuses 17, and asking which it has costs ten seconds.
        cipher = ["-C", "3"] if interface == "lanplus" else []
        return run(Net.command(self.lab.net.rack, [
            "ipmitool", *cipher, "-I", interface, "-H", self.address, "-U", self.user, "-P", self.password, "-N", "2", *arguments]))

    def chassis(self, words):
        """One call of the simulator: "get power boot" or "set power 1"; returns what the program prints."""
        self.calls.append(" ".join(words))
        # Some releases put the address of the controller in front.
        while words and words[0] not in ("get", "set", "check"):
            words = words[1:]
        if not words or words[0] == "check":
            return ""
        if words[0] == "get":
            values = {"power": str(int(self.machine.is_on)), "boot": _MACHINE_TO_SIM[self.machine.boot_once]}
            return "".join(f"{name}:{values[name]}\n" for name in words[1:] if name in values)
        for name, value in zip(words[1::2], words[2::2]):
            self._set(name, value)
        return ""

    def close(self):
        stop(self._child)

    def _set(self, name, value):
        machine = self.machine
        if name == "power":
            machine.power_on() if value == "1" else machine.power_off()
        elif name == "reset" and value == "1":
            machine.reset()
        elif name == "shutdown" and value == "1":
            machine.soft_off()
        elif name == "boot":
            machine.boot_once = _SIM_TO_MACHINE.get(value)

    def _answers(self):
        if self._child.poll() is not None:
            raise RuntimeError(f"ipmi_sim ended with {self._child.returncode}")
        try:
            return self.power()
        except RuntimeError as e:
            raise NotYet(str(e).splitlines()[-1]) from None
