"""An image whose boot loader installs and never boots: the machine must fail, with a reason, and never be Deployed."""

from lab import Operator, images, verdicts
from lab.machine import FIRMWARES
from lab.steps import PATIENCE, NotYet, wait_for

# Minutes a machine may stay silent; the region allows a deployment twice that.
NODE_TIMEOUT_MIN = 2


def arguments(parser):
    parser.add_argument("--fw", choices=FIRMWARES, default="bios")


def scenario(lab, args):
    with lab.steps.step("images built"):
        stream = images() / "stream-broken"
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    operator.serve_dhcp()
    machine = lab.suspect = lab.machine("m1", firmware=args.fw)
    operator.enlist(machine)
    operator.set_power(machine)
    operator.commission(machine)
    operator.allocate(machine)
    operator.api.post("maas/", op="set_config", name="node_timeout", value=round(NODE_TIMEOUT_MIN * PATIENCE))
    operator.maas("machine", "deploy", machine.system_id, "osystem=debian", "distro_series=bookworm")

    def failed():
        seen = operator.api.machine(machine.system_id)
        if seen["status_name"] == "Deployed":
            raise RuntimeError("a machine whose boot loader does not work is Deployed")
        if seen["status_name"] != "Failed deployment":
            raise NotYet(f"{seen['status_name']}: {seen.get('status_message')}")
        return seen

    with lab.steps.step("deployment failed"):
        seen = wait_for("Failed deployment", 900, failed, interval=1)
    if not seen.get("status_message"):
        raise RuntimeError("the failure has no reason")
    lab.steps.note(f"reason: {verdicts.check(operator.api, machine, 'local-boot-silent')}")
    if "LAB initrd: root fetched" not in machine.console():
        raise RuntimeError("the machine failed before it was installed, which proves nothing")
    lab.suspect = None
