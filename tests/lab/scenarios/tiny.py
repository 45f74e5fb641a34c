"""Every way firmware has to reach a kernel, as far as the metadata service, with the smallest image there is."""

from lab import Operator, images
from lab.machine import FIRMWARES


def arguments(parser):
    parser.add_argument("--fw", choices=FIRMWARES, default="bios")
    parser.add_argument("--loader", choices=("default", "pxelinux"), default="default",
                        help="pxelinux: the card's iPXE is given no script of its own, so it loads PXELINUX (BIOS)")
    parser.add_argument("--http-boot", action="store_true", help="UEFI HTTP boot instead of PXE (uefi)")
    parser.add_argument("--machines", type=int, default=1, help="this many, powered on together")


def scenario(lab, args):
    if args.loader == "pxelinux" and args.fw != "bios":
        raise SystemExit("PXELINUX is for BIOS")
    if args.http_boot and args.fw != "uefi":
        raise SystemExit("HTTP boot here is for uefi: Debian's signed GRUB cannot speak HTTP")
    with lab.steps.step("images built"):
        stream = images() / ("stream-tiny-http" if args.http_boot else "stream-tiny")
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    operator.serve_dhcp(disabled_boot_architectures="ipxe" if args.loader == "pxelinux" else None)
    memory = 320 if args.fw == "bios" else 512
    machines = [lab.machine(f"m{n}", firmware=args.fw, http_boot=args.http_boot, memory_mb=memory) for n in range(1, args.machines + 1)]
    for machine in machines:
        machine.bmc.ipmitool("chassis", "power", "on")
    addresses = {}
    for machine in machines:
        lab.suspect = machine
        for what, pattern, limit in (
            ("kernel", r"LAB tiny: userland", 180),
            ("lease", r"LAB tiny: leased (10\.77\.0\.\d+)", 60),
            ("root image", r"LAB tiny: root ok", 60),
            ("preseed", r"LAB tiny: cloud-config ok", 60),
        ):
            with lab.steps.step(f"{machine.name} reached its {what}"):
                found = machine.wait_console(pattern, limit)
                if what == "lease":
                    addresses[machine.name] = found[1]
        machine.wait_console(r"LAB tiny: done", 30)
    # All were on until now: two with one address would have been caught.
    if len(set(addresses.values())) != len(machines):
        raise RuntimeError(f"machines that booted together share an address: {addresses}")
    if len(machines) > 1:
        lab.steps.note(f"addresses: {', '.join(sorted(addresses.values()))}")
    for machine in machines:
        machine.bmc.ipmitool("chassis", "power", "off")
    lab.suspect = None
