"""A machine: a QEMU process with firmware, disks, network cards, a serial console and a power button.

Emulated instruction by instruction (TCG), so that it runs where there is no KVM. The slowest part of every
scenario is here; the choices below are the ones that measured fastest.
"""

import json
import os
import re
import shutil
import socket
import threading
import time

from .netns import Net
from .process import spawn, stop
from .steps import NotYet, wait_for

OVMF = "/usr/share/OVMF"
FIRMWARES = ("bios", "uefi", "secboot")
_NET_FIRST, _DISK_FIRST = 1, 50  # boot index of the first NIC; disks count from 11


class Machine:
    """One machine. `index` (1 to 10) fixes its tap, its MAC addresses, its serial number and its BMC's address."""

    def __init__(self, lab, name, index, firmware="bios", disks=1, disk_size="4G", nics=1, memory_mb=1024,
                 http_boot=False, ipxe_rom=None, cpus=1, extra=()):
        """`http_boot`: UEFI tries HTTP over IPv4 first, and no PXE. `ipxe_rom`: boot through the card's iPXE ROM
        (default: on BIOS, which has nothing else; UEFI has a network stack of its own)."""
        if firmware not in FIRMWARES:
            raise ValueError(f"firmware {firmware}: one of {', '.join(FIRMWARES)}")
        self.lab, self.name, self.index, self.firmware = lab, name, index, firmware
        self.macs = [f"52:54:00:77:{card:02x}:{index:02x}" for card in range(nics)]
        self.mac = self.macs[0]
        self.serial_number = f"LAB{index}"
        self.disks, self.memory_mb, self.cpus, self.http_boot, self.extra = disks, memory_mb, cpus, http_boot, list(extra)
        self.ipxe_rom = (firmware == "bios") if ipxe_rom is None else ipxe_rom
        self._net_index = _NET_FIRST
        self.boot_once = None  # "net" or "disk": for the next start only, as a BMC's boot device
        self.directory = lab.directory / name
        self.directory.mkdir()
        self.console_path = self.directory / "console.log"
        self.console_path.touch()
        self._child = None
        self._dead = False  # see die()
        self._lock = threading.RLock()  # the power button is pressed by BMC threads and by the scenario
        for number in range(1, disks + 1):
            with open(self._disk(number), "wb") as f:
                f.truncate(_bytes(disk_size))
        if firmware == "uefi":
            shutil.copy(f"{OVMF}/OVMF_VARS_4M.fd", self.directory / "vars.fd")
        elif firmware == "secboot":  # Microsoft's keys enrolled, enforcement on
            shutil.copy(f"{OVMF}/OVMF_VARS_4M.ms.fd", self.directory / "vars.fd")

    # power

    @property
    def is_on(self):
        """Whether the machine is powered, as its BMC sees it."""
        with self._lock:
            return self._dead or (self._child is not None and self._child.poll() is None)

    def power_on(self):
        """Press the button of a machine that is off; nothing happens if it is on."""
        with self._lock:
            if self.is_on:
                return
            log = open(self.directory / "qemu.log", "ab")
            with log:
                self._child = spawn(Net.command(self.lab.net.rack, self._command()), stdout=log, stderr=log)
            self._console_line("power on")
            wait_for(f"{self.name}'s emulator to answer", 20, self._started, interval=0.05)
            # The order was read when the machine was put together; from its next reset on the usual one holds.
            if self.boot_once:
                self.boot_once = None
                self._set_boot_order(None)
            self._qmp("cont")

    def power_off(self):
        """Pull the plug. A machine that died can be switched on again afterwards."""
        with self._lock:
            self._dead = False
            if self._child is not None:
                stop(self._child)
                self._child = None
                self._console_line("power off")

    def power_cycle(self):
        """Off, then on."""
        with self._lock:
            self.power_off()
            self.power_on()

    def reset(self):
        """The reset button; a machine that is off stays off."""
        with self._lock:
            if not self.is_on or self._dead:
                return
            self._set_boot_order(self.boot_once)
            self._console_line("reset")
            self._qmp("system_reset")
            if self.boot_once:
                self.boot_once = None
                self._set_boot_order(None)

    def soft_off(self):
        """The ACPI power button: the operating system may do as it likes."""
        with self._lock:
            if self.is_on and not self._dead:
                self._qmp("system_powerdown")

    def die(self):
        """The machine dies where it is: its emulator is killed, and its BMC goes on saying that it has power."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child.wait()
                self._child = None
                self._dead = True
                self._console_line("died")

    # console

    def mark(self):
        """A position in the console log, for `wait_console(after=...)`."""
        return os.path.getsize(self.console_path)

    def console(self, after=0):
        """What the serial console has shown since `after`."""
        with open(self.console_path, "rb") as f:
            f.seek(after)
            return f.read().decode("utf-8", "replace")

    def wait_console(self, pattern, limit, after=0):
        """Wait until the console shows `pattern` (a regular expression); returns the match."""
        expression = re.compile(pattern)

        def check():
            text = self.console(after)
            match = expression.search(text)
            if not match:
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                raise NotYet(f"console ends with {lines[-1][-160:]!r}" if lines else "an empty console")
            return match

        return wait_for(f"{self.name}'s console to show {pattern!r}", limit, check, interval=0.2)

    # inside

    def _disk(self, number):
        return self.directory / f"disk{number}.raw"

    def _console_line(self, text):
        with open(self.console_path, "a") as f:
            f.write(f"\r\n[lab {time.strftime('%T')}] {text}\r\n")

    def _command(self):
        net_index = self._net_index = _DISK_FIRST if self.boot_once == "disk" else _NET_FIRST
        q = [
            "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-display", "none", "-S",
            "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64", "-smp", self.cpus, "-m", self.memory_mb,
            "-chardev", f"file,id=console,path={self.console_path},append=on", "-serial", "chardev:console",
            "-qmp", f"unix:{self._qmp_path()},server=on,wait=off", "-device", "virtio-rng-pci",
            "-uuid", f"00000000-0000-4000-8000-5254007700{self.index:02x}",
            "-smbios", f"type=1,manufacturer=Lab,product=Rack,serial={self.serial_number}",
            "-smbios", f"type=2,manufacturer=Lab,serial={self.serial_number}",
        ]
        if self.firmware == "bios":
            # SeaBIOS stops for good at "No bootable device"; servers try again.
            q += ["-machine", "q35,graphics=off", "-boot", "menu=off,reboot-timeout=5000"]
        else:
            code = "OVMF_CODE_4M.fd" if self.firmware == "uefi" else "OVMF_CODE_4M.ms.fd"
            q += ["-machine", "q35" if self.firmware == "uefi" else "q35,smm=on"]
            if self.firmware == "secboot":
                q += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
            q += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/{code}",
                  "-drive", f"if=pflash,unit=1,format=raw,file={self.directory / 'vars.fd'}"]
            if self.http_boot:
                for family in ("IPv4", "IPv6"):
                    q += ["-fw_cfg", f"name=opt/org.tianocore/{family}PXESupport,string=no"]
        rom = "" if self.ipxe_rom else ",romfile="
        q += ["-netdev", f"tap,id=net0,ifname=tap{self.index},script=no,downscript=no",
              "-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={self.mac},bootindex={net_index}{rom}"]
        for card, mac in enumerate(self.macs[1:], start=1):  # present, but with no cable to the rack
            q += ["-netdev", f"hubport,id=net{card},hubid={card}",
                  "-device", f"virtio-net-pci,id=nic{card},netdev=net{card},mac={mac},romfile="]
        for n in range(1, self.disks + 1):
            q += ["-drive", f"if=none,id=drive{n},file={self._disk(n)},format=raw,cache=unsafe,discard=unmap",
                  "-device", f"virtio-blk-pci,id=disk{n},drive=drive{n},serial={self.serial_number}D{n},bootindex={10 + n}"]
        return [*map(str, q), *self.extra]

    def _qmp_path(self):
        return self.lab.directory / f"{self.name}.qmp"  # short: a socket's path has about 100 bytes

    def _started(self):
        if self._child.poll() is not None:
            raise RuntimeError(f"{self.name}: the emulator ended with {self._child.returncode}: {self._qemu_log()}")
        try:
            return self._qmp("query-status") is not None
        except OSError as e:
            raise NotYet(str(e)) from None

    def _qemu_log(self):
        return (self.directory / "qemu.log").read_text(errors="replace")[-500:]

    def _set_boot_order(self, once):
        index = _DISK_FIRST if once == "disk" else _NET_FIRST
        # QEMU refuses an index that is taken, also by the device itself.
        if index != self._net_index:
            self._qmp("qom-set", path="/machine/peripheral/nic0", property="bootindex", value=index)
            self._net_index = index

    def _qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self._qmp_path()))
            with s.makefile("rw") as f:
                f.readline()  # the greeting
                for name, args in (("qmp_capabilities", {}), (command, arguments)):
                    f.write(json.dumps({"execute": name, "arguments": args}) + "\n")
                    f.flush()
                    while True:
                        answer = json.loads(f.readline())
                        if "error" in answer:
                            raise RuntimeError(f"{self.name}: {name}: {answer['error']['desc']}")
                        if "return" in answer:
                            break
        return answer["return"]


def _bytes(size):
    """Bytes of "4G" or "512M"."""
    return int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]
