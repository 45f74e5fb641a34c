"""A lab: what one scenario needs, and the certainty that it is all gone afterwards."""

import os
import pathlib
import shutil
import signal
import sys
import tempfile

from .bmc import Bmc, ChassisServer
from .images import Mirror
from .machine import Machine
from .netns import Net
from .steelyard import Steelyard
from .steps import Steps


class Lab:
    """`with Lab() as lab:` gives namespaces and a directory; machines, BMCs and processes are made through it."""

    def __init__(self, region=False, keep=False):
        """`region`: a third namespace for a region apart from its rack. `keep`: leave the directory (logs, disks)
        behind; after a failure it always stays, without the disks."""
        self.steps = Steps()
        self.keep = keep
        self._want_region = region
        self._closers = []
        self.machines = []
        self.directory = self.net = self.chassis = None

    def __enter__(self):
        if os.geteuid() != 0:
            raise SystemExit("the lab needs root: it makes network namespaces")
        # So that "kill" and a closed terminal run the same tidying up as the end of the block.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: sys.exit(128 + n))
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="sylab-", dir=os.environ.get("TMPDIR", "/tmp")))
        try:
            self.net = Net(region=self._want_region)
            self._closers.append(self.net.close)
            self.chassis = ChassisServer(self)
            self._closers.append(self.chassis.close)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        failures = self._close()
        for machine in self.machines:
            if not self.keep:
                for disk in machine.directory.glob("disk*.raw"):
                    disk.unlink()
        if kind is None and not failures and not self.keep:
            shutil.rmtree(self.directory)
        else:
            print(f"logs and consoles are in {self.directory}", file=sys.stderr)
        if failures and kind is None:
            raise failures[0]
        return False

    def machine(self, name, index=None, bmc=True, **options):
        """A machine that is off, with its BMC as `machine.bmc`."""
        machine = Machine(self, name, index or len(self.machines) + 1, **options)
        self.machines.append(machine)
        self._closers.append(machine.power_off)
        machine.bmc = None
        if bmc:
            machine.bmc = Bmc(self, machine)
            self._closers.append(machine.bmc.close)
        return machine

    def mirror(self, directory, namespace=None, address=None):
        """A boot image mirror in the rack (or another namespace)."""
        mirror = Mirror(namespace or self.net.rack, address or self.net.gateway, directory)
        self._closers.append(mirror.close)
        return mirror

    def steelyard(self, *args, **options):
        """A process of the product, not yet started."""
        process = Steelyard(self, *args, **options)
        self._closers.append(process.stop)
        return process

    def defer(self, close):
        """Call `close` when the lab ends."""
        self._closers.append(close)

    def _close(self):
        """Undo everything, newest first; one failure does not keep the rest from being undone."""
        failures = []
        while self._closers:
            try:
                self._closers.pop()()
            except Exception as e:
                print(f"lab: tidying up: {e}", file=sys.stderr)
                failures.append(e)
        return failures
