"""A machine dies during its deployment: it ends in Failed deployment, with the last thing that was seen of it."""

from lab import Operator, images, verdicts
from lab.machine import FIRMWARES
from lab.operator import BOOT_S, DEPLOY_S, OS, RELEASE
from lab.steps import PATIENCE, NotYet, wait_for

# Where the machine dies, how long it may then stay silent (seconds; longer than the longest silence of a healthy
# machine before that point), and the verdict.
POINTS = {
    "before-offer": (30, "no-request"),
    "kernel": (60, "no-root"),
    "image": (75, "stopped-reporting"),
    "reboot": (75, "local-boot-silent"),
}


def arguments(parser):
    parser.add_argument("--fw", choices=FIRMWARES, default="bios")
    parser.add_argument("points", nargs="*", metavar="POINT", help=f"where it dies: {', '.join(POINTS)} (default: at each, one after another)")


def scenario(lab, args):
    unknown = set(args.points) - set(POINTS)
    if unknown:
        raise SystemExit(f"no such point: {', '.join(unknown)}")
    with lab.steps.step("images built"):
        stream = images() / "stream"
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    operator.serve_dhcp()
    machine = lab.suspect = lab.machine("m1", firmware=args.fw)
    operator.enlist(machine)
    operator.set_power(machine)
    operator.commission(machine)
    for point in args.points or POINTS:
        stop_at(lab, operator, machine, point)
    lab.suspect = None


def stop_at(lab, operator, machine, point):
    limit, code = POINTS[point]
    silence = round(limit * PATIENCE)
    operator.allocate(machine)
    operator.api.post("maas/", op="set_config", name="node_timeout_seconds", value=silence)
    mark = machine.mark()
    with lab.steps.step(f"{machine.name} died: {point}"):
        operator.maas("machine", "deploy", machine.system_id, f"osystem={OS}", f"distro_series={RELEASE}")
        wait_until(operator, machine, point, mark)
        machine.die()
    with lab.steps.step(f"{machine.name} is Failed deployment: {code}"):

        def failed():
            seen = operator.api.machine(machine.system_id)
            if seen["status_name"] == "Deployed":
                raise RuntimeError("a machine that died is Deployed")
            if seen["status_name"] != "Failed deployment":
                raise NotYet(f"{seen['status_name']}: {seen.get('status_message')}")
            return True

        wait_for("Failed deployment", limit + 90, failed)
        lab.steps.note(f"reason: {verdicts.check(operator.api, machine, code)}")
    operator.release(machine)


def wait_until(operator, machine, point, mark):
    """Wait until the machine has come to the point."""
    if point == "before-offer":
        # The firmware is at its self test for a second: no card has sent anything yet.
        wait_for("power", 60, lambda: machine.is_on, interval=0.01)
    elif point == "kernel":
        machine.wait_console(r"Linux version", BOOT_S, after=mark)
    elif point == "image":
        # The image streams to the disk.
        seen(operator, machine, "report", DEPLOY_S, lambda e: e["name"] == "cmd-install/stage-extract" and e["event"] == "start")
    else:
        # It has rebooted, asked what to do, and was sent to its disk.
        seen(operator, machine, "config", DEPLOY_S, lambda e: e["purpose"] == "local")


def seen(operator, machine, kind, limit, wanted):
    def check():
        boots = operator.api.boots(machine.system_id)["boots"]
        entries = boots[0]["entries"] if boots else []
        if any(e["kind"] == kind and wanted(e) for e in entries):
            return True
        status = operator.api.machine(machine.system_id)["status_name"]
        if status != "Deploying":
            raise RuntimeError(f"{machine.name} is {status} before it could be stopped")
        raise NotYet(f"{len(entries)} entries")

    wait_for(f"{machine.name} to come to {kind} {limit}", limit, check, interval=0.3)
