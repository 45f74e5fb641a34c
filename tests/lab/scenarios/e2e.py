"""A machine that knows nothing but its network card is enlisted, commissioned, deployed, reached and released."""

from lab import Operator, images
from lab.machine import FIRMWARES


def arguments(parser):
    parser.add_argument("--fw", action="append", choices=FIRMWARES, help="firmware; several for several machines, one after another (default bios)")
    parser.add_argument("--disks", type=int, default=1)
    parser.add_argument("--nics", type=int, default=1)
    parser.add_argument("--http-boot", action="store_true", help="UEFI HTTP boot instead of PXE (uefi)")
    parser.add_argument("--together", action="store_true", help="power all machines on at once for enlistment")


def scenario(lab, args):
    with lab.steps.step("images built"):
        stream = images() / ("stream-http" if args.http_boot else "stream")
    operator = lab.operator = Operator(lab, lab.steelyard())
    operator.start()
    operator.import_images(lab.mirror(stream).index)
    operator.serve_dhcp()
    machines = [lab.machine(f"{fw}{n}", firmware=fw, http_boot=args.http_boot and fw == "uefi", disks=args.disks, nics=args.nics)
                for n, fw in enumerate(args.fw or ["bios"], start=1)]
    if args.together:
        for machine in machines:
            machine.bmc.ipmitool("chassis", "power", "on")
    for machine in machines:
        lab.suspect = machine
        operator.enlist(machine)
        operator.set_power(machine)
        operator.commission(machine)
        operator.allocate(machine)
        operator.deploy(machine)
        operator.check_installed(machine)
        operator.release(machine)
    lab.suspect = None
