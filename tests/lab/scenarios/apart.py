"""Region and rack on different hosts: enrolment, a machine's whole life, and a deployed machine that boots while the region is away."""

import re
import subprocess

from lab import Operator, apart, images
from lab.machine import FIRMWARES
from lab.netns import Net
from lab.process import run
from lab.steps import NotYet, wait_for

REGION_APART = True
# From the login prompt to SSH. cloud-init starts from what it kept of its first boot; had it kept nothing, it would
# look for its metadata service for two minutes and then go on without.
ALONE_S = 240


def arguments(parser):
    parser.add_argument("--fw", choices=FIRMWARES, default="bios")


def scenario(lab, args):
    with lab.steps.step("images built"):
        stream = images() / "stream"
    region, rack = apart.processes(lab)
    operator = lab.operator = Operator(lab, region)
    operator.start()
    register(lab, region, rack)
    operator.import_images(lab.mirror(stream, namespace=lab.net.region, address=Net.region_address).index)
    operator.serve_dhcp()

    machine = lab.suspect = lab.machine("m1", firmware=args.fw)
    operator.enlist(machine)
    operator.set_power(machine)
    operator.commission(machine)
    operator.allocate(machine)
    operator.deploy(machine)
    operator.check_installed(machine)

    booted_alone(lab, operator, region, rack, machine)
    with lab.steps.step("region is back, and has what the rack kept"):
        region.start()
        region.wait_ready()
        apart.wait_connected(region)
        wait_for("the boot that the region has not seen", 60, lambda: reported(operator, machine))
    operator.release(machine)
    lab.suspect = None


def register(lab, region, rack):
    """Enrol the rack with a one-time secret; the secret is good once."""
    with lab.steps.step("rack registered with a one-time secret"):
        refused = _register(rack, "A" * 43 + "." + "0" * 64)
        if "not the one that made the secret" not in refused:
            raise RuntimeError(f"a secret of another region: {refused}")
        secret = apart.register(region, rack)
        identity = rack.data / "rack" / "identity.json"
        if identity.stat().st_mode & 0o077:
            raise RuntimeError(f"{identity} can be read by others")
        again = _register(rack, secret)
        if "registered already" not in again:
            raise RuntimeError(f"a second registration: {again}")
        spent = _register(rack, secret, "--force")
        if "used before" not in spent:
            raise RuntimeError(f"a secret that was used: {spent}")
        rack.start()
        apart.wait_connected(region)


def _register(rack, secret, *more):
    """A registration that must be refused; returns what it said."""
    try:
        said = rack.command("maas-rack", "register", "--url", apart.LINK, "--secret", secret, *more, "--data-dir", rack.data)
    except RuntimeError as e:
        return str(e)
    raise RuntimeError(f"a registration that had to be refused was taken: {said!r}")


def booted_alone(lab, operator, region, rack, machine):
    """The region is stopped; the machine is power cycled, gets its lease and boots its disk; a newcomer gets a lease too."""
    operator.boots_before = {b["id"] for b in operator.api.boots(machine.system_id)["boots"]}
    operator.events_before = {e["id"] for e in events(operator, machine)}
    address = next(a for a in operator.api.machine(machine.system_id)["ip_addresses"] if a.startswith("10.77.0."))
    # Its file system has written nothing down yet of a boot that is seconds old, what cloud-init keeps among it.
    operator.ssh(machine, "sudo sync")
    with lab.steps.step("region stopped"):
        region.stop()
    with lab.steps.step(f"{machine.name} power cycled, booted its disk without the region"):
        mark = machine.mark()
        # From the network, as a machine whose firmware tries that first.
        machine.bmc.ipmitool("chassis", "bootdev", "pxe")
        machine.bmc.ipmitool("chassis", "power", "cycle")
        machine.wait_console(r"login:", 300, after=mark)
        root = login(lab, operator, address, "findmnt -no SOURCE /").strip()
        if not root.startswith("/dev/"):
            raise RuntimeError(f"the root is not the machine's disk: {root!r}")
        if "http://" not in machine.console(mark):
            raise RuntimeError("the machine did not ask the rack what to boot")
    with lab.steps.step("another host got a lease without the region"):
        run(Net.command(lab.net.client, ["dhclient", "-1", "-sf", "/bin/true", "-lf", lab.directory / "client.leases",
                                         "-pf", lab.directory / "client.pid", "eth0"]), timeout=60)
        leases = (lab.directory / "client.leases").read_text()
        operator.leased = re.search(r"fixed-address ([\d.]+);", leases)[1]
        run(["kill", (lab.directory / "client.pid").read_text().strip()])
    with lab.steps.step("the rack says that its region is away"):
        status = rack.steelyard("status")
        if not re.search(r"rackd +degraded", status):
            raise RuntimeError(status)


def events(operator, machine):
    """The events of a machine, newest first."""
    return operator.api.get("events/", op="query", id=machine.system_id, level="DEBUG", limit=1000)["events"]


def login(lab, operator, address, command):
    def check():
        done = subprocess.run(Net.command(lab.net.rack, [
            "ssh", "-i", str(operator.key_path), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", f"debian@{address}", command]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise NotYet(done.stderr.strip() or f"exit status {done.returncode}")
        return done.stdout

    return wait_for(f"SSH to {address}", ALONE_S, check, interval=2)


def reported(operator, machine):
    """What the region did not see: the boot, its events, and the other host's lease."""
    boots = [b for b in operator.api.boots(machine.system_id)["boots"] if b["id"] not in operator.boots_before]
    kinds = {e["kind"] for b in boots for e in b["entries"]}
    if not {"dhcp", "config"} <= kinds:
        raise NotYet(f"{len(boots)} new boots with {sorted(kinds)}")
    new = {e["type"] for e in events(operator, machine) if e["id"] not in operator.events_before}
    if "Asked for its boot configuration" not in new:
        raise NotYet(f"new events {sorted(new)}")
    addresses = {a["ip"] for a in operator.api.get(f"subnets/{operator.subnet['id']}/", op="ip_addresses")}
    if operator.leased not in addresses:
        raise NotYet(f"no lease of {operator.leased}: {sorted(addresses)}")
    return True
