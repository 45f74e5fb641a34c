"""A second host on the machines' network asks for a machine's preseed, at the rack and at the region: it is refused, and an event says so."""

from lab import Operator, images
from lab.api import Api
from lab.netns import Net
from lab.process import run
from lab.steps import NotYet, wait_for

INTRUDER = "10.77.0.66"
RACK_HTTP = 5248


def arguments(parser):
    pass


def scenario(lab, _):
    with lab.steps.step("images built"):
        stream = images() / "stream-tiny"
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    operator.serve_dhcp()
    machine = lab.suspect = lab.machine("m1", memory_mb=320)
    machine.system_id = operator.api.post(
        "machines/", architecture="amd64/generic", mac_addresses=[machine.mac], hostname="m1", power_type="ipmi", commission=False,
        power_parameters_power_address=machine.bmc.address, power_parameters_power_user=machine.bmc.user,
        power_parameters_power_pass=machine.bmc.password, power_parameters_power_driver="LAN_2_0")["system_id"]
    with lab.steps.step("m1 commissions, and got its own preseed"):
        operator.api.post(f"machines/{machine.system_id}/", op="commission")
        own = machine.wait_console(r"LAB tiny: leased (10\.77\.0\.\d+)", 180)[1]
        machine.wait_console(r"LAB tiny: metadata ok", 60)

    run(["ip", "-n", lab.net.client, "addr", "add", f"{INTRUDER}/24", "dev", "eth0"])
    path = f"/MAAS/metadata/latest/by-id/{machine.system_id}/"
    forged = {"X-Forwarded-For": own, "X-Real-IP": own, "Forwarded": f"for={own}", "X-Forwarded-Host": Net.gateway}
    for where, port in (("rack", RACK_HTTP), ("region", 5240)):
        for how, headers in (("plainly", {}), ("in the machine's name", forged)):
            with lab.steps.step(f"refused by the {where}, asked {how}"):
                status, body = get(lab, f"http://{Net.gateway}:{port}", f"{path}?op=get_preseed", headers)
                if status != 403:
                    raise RuntimeError(f"the {where} answered {status}: {body[:200]!r}")
                for secret in ("token_secret", "token_key", "consumer_key"):
                    if secret in body:
                        raise RuntimeError(f"the refusal has a {secret} in it")
    # The installer's way to say "from the disk from now on" is the machine's own, too.
    with lab.steps.step("may not send the machine to its disk"):
        status, body = get(lab, f"http://{Net.gateway}:{RACK_HTTP}", f"{path}?op=netboot_off", {}, method="POST")
        if status != 403:
            raise RuntimeError(f"answered {status}: {body[:200]!r}")
    with lab.steps.step("an event of the machine says so"):

        def told():
            events = operator.api.get("events/", op="query", id=[machine.system_id], level="WARNING", limit=100)["events"]
            found = [e for e in events if INTRUDER in e["description"]]
            if not found:
                raise NotYet(f"{len(events)} events")
            return found

        found = wait_for(f"an event that names {INTRUDER}", 20, told)
        lab.steps.note(f"{found[0]['type']}: {found[0]['description']}")
        if any(own in e["description"].split(":")[0] for e in found):
            raise RuntimeError("an event blames the machine itself")
    if operator.api.machine(machine.system_id)["status_name"] != "Commissioning":
        raise RuntimeError("the machine has left Commissioning: the refusals prove nothing")
    lab.suspect = None


def get(lab, base, target, headers, method="GET"):
    """An HTTP request from the second host; returns status and body."""
    return Api(base, namespace=lab.net.client, timeout=10).raw(method, target, headers)


