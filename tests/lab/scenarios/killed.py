"""A machine's whole life while region and rack, two processes, are each killed with SIGKILL at three points and started again: it finishes."""

import time

from lab import Operator, apart, images
from lab.machine import FIRMWARES
from lab.operator import BOOT_S, DEPLOY_S
from lab.steps import NotYet, wait_for

REGION_APART = True
# How long the dead one stays away; machines ask again for longer than that.
AWAY_S = 3.0


def arguments(parser):
    parser.add_argument("--fw", choices=FIRMWARES, default="bios")


def scenario(lab, args):
    with lab.steps.step("images built"):
        stream = images() / "stream"
    region, rack = apart.processes(lab)
    operator = lab.operator = Operator(lab, region)
    operator.start()
    with lab.steps.step("rack registered"):
        apart.register(region, rack)
        rack.start()
        apart.wait_connected(region)
    operator.import_images(lab.mirror(stream, namespace=lab.net.region, address=region.listen.split(":")[0]).index)
    operator.serve_dhcp()
    killer = Killer(lab, operator, region, rack)

    machine = lab.suspect = lab.machine("m1", firmware=args.fw)
    operator.enlist(machine)
    operator.set_power(machine)
    operator.commission(machine, meanwhile=lambda: commissioning(killer, machine, machine.mark()))
    operator.allocate(machine)
    operator.deploy(machine, meanwhile=lambda: deploying(killer, machine, machine.mark()))
    killer.check(machine)
    operator.check_installed(machine)
    operator.release(machine)
    lab.suspect = None


def commissioning(killer, machine, mark):
    """The ephemeral system boots: its kernel, then cloud-init before it has asked for anything."""
    machine.wait_console(r"Linux version", BOOT_S, after=mark)
    killer.kill(killer.region, machine, "Commissioning", "the kernel of the ephemeral system starts")
    machine.wait_console(r"running 'init-local'", BOOT_S, after=mark)
    killer.kill(killer.rack, machine, "Commissioning", "cloud-init of the ephemeral system starts")


def deploying(killer, machine, mark):
    """The image streams to the disk; the machine has rebooted into it and has not asked for its metadata."""
    killer.wait_entry(machine, DEPLOY_S, "the image to stream", lambda e: is_image(e, "start"))
    before = time.time()
    killer.kill(killer.rack, machine, "Deploying", "the image streams", waits=False)
    # The machine fetches from the rack again, which has or has not found its region yet.
    killer.kill(killer.region, machine, "Deploying", "the image streams")
    killer.after.append((before, 1, "the end of the image", lambda e: is_image(e, "finish")))

    killer.wait_entry(machine, DEPLOY_S, "the disk to boot", lambda e: e["kind"] == "config" and e["purpose"] == "local")
    before = time.time()
    killer.kill(killer.region, machine, "Deploying", "the machine has rebooted into its disk", waits=False)
    killer.kill(killer.rack, machine, "Deploying", "the machine has rebooted into its disk")
    killer.after.append((before, 0, "the installed system's first call", lambda e: e["kind"] == "metadata"))


def is_image(entry, event):
    return entry["kind"] == "report" and entry["name"] == "cmd-install/stage-extract" and entry["event"] == event


class Killer:
    """Kills and starts again, and knows afterwards whether it was in time."""

    def __init__(self, lab, operator, region, rack):
        self.lab, self.operator, self.region, self.rack = lab, operator, region, rack
        # (time, which boot, name, which entry): what must have come after a kill, and not before it. Boots count back from the newest.
        self.after = []

    def kill(self, process, machine, status, when, waits=True):
        """Kill one of the two and start it again. `waits`: until both have found each other."""
        with self.lab.steps.step(f"{process.name} killed: {when}"):
            seen = self.operator.api.machine(machine.system_id)["status_name"]
            if seen != status:
                raise RuntimeError(f"too late: {machine.name} is {seen}")
            found = self._found()
            process.kill()
            time.sleep(AWAY_S)
            process.start()
            self.region.wait_ready()
            if waits:
                wait_for("the rack to find its region again", 60, lambda: self._found() > found)

    def wait_entry(self, machine, limit, what, wanted):
        """Wait until the newest boot's timeline has an entry."""

        def check():
            boots = self.operator.api.boots(machine.system_id)["boots"]
            entries = boots[0]["entries"] if boots else []
            if any(wanted(e) for e in entries):
                return True
            raise NotYet(f"{len(entries)} entries")

        wait_for(what, limit, check, interval=0.2)

    def check(self, machine):
        """Every kill was in time: what it was to precede came after it."""
        with self.lab.steps.step("the kills were in time"):
            boots = self.operator.api.boots(machine.system_id)["boots"]
            for killed, boot, name, wanted in self.after:
                seen = sorted(e["first"] / 1e6 for e in boots[boot]["entries"] if wanted(e))
                if not seen or seen[0] <= killed:
                    raise RuntimeError(f"killed at {killed}, and {name} was seen at {seen}")
                self.lab.steps.note(f"{name}: {seen[0] - killed:.1f} s after the kill")

    def _found(self):
        return self.rack.log_path.read_text(errors="replace").count("connected to the region")
