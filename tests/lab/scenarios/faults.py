"""Seven faults, injected into real machines: each is told from the others, with its own sentence and remedy."""

import hashlib
import json

from lab import Operator, images, verdicts
from lab.process import run
from lab.steps import PATIENCE, NotYet, wait_for

# Seconds a machine may stay silent.
SILENCE_S = 45

# The machines of the first half, then of the second: the altered image must be the first that is asked for, and
# four machines at a time are enough for two cores.
FIRST = ("no-request", "power-refused", "wrong-loader", "image-altered")
SECOND = ("no-kernel", "no-metadata", "credentials-refused")

OPTIONS = {
    "wrong-loader": {"firmware": "uefi", "memory_mb": 512},
    # Enough for the loader, not for the kernel's 14 MB. PXELINUX fetches both files whole where they just fit.
    "no-kernel": {"memory_mb": 16},
}
KERNEL_OPTIONS = {"no-metadata": "lab_fault=no-route", "credentials-refused": "lab_fault=credentials"}
# Console of a machine that really came to its fault; others could fail for reasons of their own.
PROOF = {
    "image-altered": r"LAB tiny: root refused",
    "no-metadata": r"LAB tiny: root ok[\s\S]*LAB tiny: no route[\s\S]*LAB tiny: cloud-config refused",
    "credentials-refused": r"LAB tiny: cloud-config ok[\s\S]*LAB tiny: metadata refused[^\n]*401",
}


def arguments(parser):
    parser.add_argument("codes", nargs="*", metavar="FAULT", help=f"only these of {', '.join((*FIRST, *SECOND))}")


def scenario(lab, args):
    unknown = set(args.codes) - {*FIRST, *SECOND}
    if unknown:
        raise SystemExit(f"no such fault: {', '.join(unknown)}")
    first, second = ([code for code in half if code in args.codes or not args.codes] for half in (FIRST, SECOND))
    with lab.steps.step("images built"):
        stream = images() / "stream-tiny"
    if len({*FIRST, *SECOND}) != 7 or not {*FIRST, *SECOND} <= set(verdicts.table()):
        raise RuntimeError("the faults do not have seven verdicts of the table")
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    # Without iPXE all go through a loader that has to be fetched; without their own, UEFI machines are given the
    # one that is for everybody else.
    operator.serve_dhcp(disabled_boot_architectures="ipxe,uefi_amd64_tftp,uefi_ebc_tftp,uefi_amd64_http")
    operator.api.post("maas/", op="set_config", name="node_timeout_seconds", value=round(SILENCE_S * PATIENCE))
    machines = {code: machine(lab, operator, code) for code in (*first, *second)}

    if "no-request" in machines:
        run(["ip", "-n", lab.net.rack, "link", "set", f"tap{machines['no-request'].index}", "down"])
    altered = content(operator)
    flip(altered)
    fail(lab, operator, {code: machines[code] for code in first})
    flip(altered)
    fail(lab, operator, {code: machines[code] for code in second})
    lab.suspect = None


def machine(lab, operator, code):
    """A machine that an administrator has added, with its fault where that is a setting."""
    m = lab.machine(code, **{"memory_mb": 320, **OPTIONS.get(code, {})})
    with lab.steps.step(f"{m.name}: machine added"):
        password = "not-the-password" if code == "power-refused" else m.bmc.password
        added = operator.api.post(
            "machines/", architecture="amd64/generic", mac_addresses=[m.mac], hostname=m.name, power_type="ipmi", commission=False,
            power_parameters=json.dumps({"power_address": m.bmc.address, "power_user": m.bmc.user, "power_pass": password,
                                         "power_driver": "LAN_2_0"}))
        m.system_id = added["system_id"]
        if code in KERNEL_OPTIONS:
            operator.api.post("tags/", name=code, kernel_opts=KERNEL_OPTIONS[code])
            operator.api.post(f"tags/{code}/", op="update_nodes", add=[m.system_id])
    return m


def fail(lab, operator, machines):
    """Commission the machines together; each must fail with its verdict, and no two alike."""
    for m in machines.values():
        operator.api.post(f"machines/{m.system_id}/", op="commission")
    texts = {}
    for code, m in machines.items():
        lab.suspect = m
        with lab.steps.step(f"{m.name}: told from the others"):

            def failed(m=m):
                seen = operator.api.machine(m.system_id)
                if seen["status_name"] == "Failed commissioning":
                    return True
                if seen["status_name"] != "Commissioning":
                    raise RuntimeError(f"{m.name} is {seen['status_name']}")
                raise NotYet(f"{seen.get('status_message')}")

            wait_for(f"{m.name} to fail", 300, failed)
            texts[code] = verdicts.check(operator.api, m, code)
        lab.steps.note(texts[code])
        if code in PROOF:
            m.wait_console(PROOF[code], 1)
    for m in machines.values():
        m.bmc.ipmitool("chassis", "power", "off")


def content(operator):
    """The region's file of the root image; a rack that does not have it yet takes it from there."""
    digest = hashlib.sha256((images() / "parts" / "dummy.squashfs").read_bytes()).hexdigest()
    return operator.steelyard.data / "images" / digest


def flip(path):
    """Flip one bit in the middle of a file; a second time it is as it was."""
    with open(path, "r+b") as f:
        middle = path.stat().st_size // 2
        f.seek(middle)
        byte = f.read(1)[0]
        f.seek(middle)
        f.write(bytes([byte ^ 1]))
