"""What an operator and a user do to a machine, through the API and the `maas` command line.

Each method is one stage of a machine's life and waits, with a limit, until the stage is over. Limits are for
an emulated machine beside others on two cores; a healthy run needs a third of them.
"""

import json
import subprocess

from .api import Api, ApiError
from .netns import Net
from .process import run
from .steps import NotYet, wait_for

USER, PASSWORD, EMAIL = "admin", "lab-password", "admin@lab.example"
OS, RELEASE = "debian", "bookworm"
# The user cloud-init makes in Debian's images.
LOGIN = "debian"
DYNAMIC_FIRST, DYNAMIC_LAST = "10.77.0.100", "10.77.0.199"
FAILED = ("Failed commissioning", "Failed deployment", "Failed testing", "Releasing failed", "Failed disk erasing", "Broken")

BOOT_S = 240  # power-on to the ephemeral system's first word
COMMISSION_S = 420
DEPLOY_S = 600
RELEASE_S = 120


class Operator:
    """An administrator of one region, with an SSH key of their own."""

    def __init__(self, lab, steelyard):
        self.lab, self.steelyard, self.steps = lab, steelyard, lab.steps
        self.api = None
        self.key_path = lab.directory / "id_ed25519"
        self.subnet = None
        self.rack_id = None

    # once

    def start(self):
        """Start the product, make the administrator, log the command line in, upload an SSH key."""
        with self.steps.step("steelyard answers"):
            self.steelyard.start()
            self.steelyard.wait_ready()
        with self.steps.step("administrator, API key, maas login"):
            self.steelyard.steelyard("createadmin", "--username", USER, "--password", PASSWORD, "--email", EMAIL)
            key = self.steelyard.steelyard("apikey", "--username", USER).strip()
            self.api = Api(self.steelyard.url, key, self.steelyard.namespace)
            self.steelyard.maas("login", USER, self.steelyard.url, key)
        with self.steps.step("SSH key uploaded"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", self.key_path])
            self.maas("sshkeys", "create", f"key={self.key_path.with_suffix('.pub').read_text().strip()}")

    def maas(self, *arguments):
        """`maas PROFILE ...`; returns the answer, from JSON."""
        text = self.steelyard.maas(USER, *arguments)
        return json.loads(text) if text.strip().startswith(("{", "[")) else text

    def import_images(self, url, limit=300):
        """Make `url` the only boot source, select our release and wait until it is there, with its boot loaders."""
        with self.steps.step("images imported"):
            for source in self.api.get("boot-sources/"):
                self.api.delete(f"boot-sources/{source['id']}/")
            source = self.api.post("boot-sources/", url=url)

            def select():
                # What can be selected is known once the region has read the source.
                try:
                    return self.api.post(f"boot-sources/{source['id']}/selections/", os=OS, release=RELEASE,
                                         arches=["amd64"], subarches=["*"], labels=["*"])
                except ApiError as e:
                    if e.status == 400:
                        raise NotYet(e.body) from None
                    raise

            wait_for(f"{OS}/{RELEASE} to be selectable from {url}", 60, select)
            self.api.post("boot-resources/", op="import")
            wait_for(f"{OS}/{RELEASE} to be imported", limit, self._imported)
            for name, value in (("commissioning_osystem", OS), ("commissioning_distro_series", RELEASE),
                                ("default_osystem", OS), ("default_distro_series", RELEASE)):
                self.api.post("maas/", op="set_config", name=name, value=value)

    def serve_dhcp(self, disabled_boot_architectures=None):
        """Give the machines' subnet a dynamic range and switch DHCP on for its VLAN."""
        with self.steps.step("DHCP switched on"):
            self.rack_id = wait_for("a rack controller", 60, lambda: self.api.get("rackcontrollers/"))[0]["system_id"]
            self.subnet = wait_for(f"the subnet {Net.machines}", 30, self._subnet)
            if disabled_boot_architectures:
                self.api.put(f"subnets/{self.subnet['id']}/", disabled_boot_architectures=disabled_boot_architectures)
            self.api.post("ipranges/", type="dynamic", start_ip=DYNAMIC_FIRST, end_ip=DYNAMIC_LAST, subnet=self.subnet["id"])
            vlan = self.subnet["vlan"]
            self.api.put(f"fabrics/{vlan['fabric_id']}/vlans/{vlan['vid']}/", dhcp_on=True, primary_rack=self.rack_id)

    # a machine's life

    def enlist(self, machine):
        """Power an unknown machine on, by its BMC; wait until the region knows it. Returns its system_id."""
        with self.steps.step(f"{machine.name} enlisted as New"):
            machine.bmc.ipmitool("chassis", "power", "on")

            def known():
                found = self.api.machine_with_mac(machine.mac)
                if not found:
                    raise NotYet(f"no machine has {machine.mac}; {self._last_line(machine)}")
                return found

            machine.system_id = wait_for(f"{machine.mac} to enlist", BOOT_S, known)["system_id"]
            self.wait_status(machine, "New", COMMISSION_S)
            self.wait_power(machine, "off", 120)
        return machine.system_id

    def set_power(self, machine, **parameters):
        """Tell the region about the machine's BMC."""
        with self.steps.step(f"{machine.name} has power type ipmi"):
            parameters = {"power_address": machine.bmc.address, "power_user": machine.bmc.user, "power_pass": machine.bmc.password,
                          "power_driver": "LAN_2_0", **parameters}
            self.api.put(f"machines/{machine.system_id}/", power_type="ipmi",
                         **{f"power_parameters_{name}": value for name, value in parameters.items()})

            def agrees():
                state = self.api.get(f"machines/{machine.system_id}/", op="query_power_state")["state"]
                if state != machine.bmc.power():
                    raise NotYet(f"region says {state}, BMC says {machine.bmc.power()}")
                return state

            wait_for("region and BMC to agree on the power state", 60, agrees)

    def commission(self, machine, meanwhile=None):
        """Commission, to Ready. `meanwhile` is called once the order is given."""
        with self.steps.step(f"{machine.name} commissioned"):
            self.maas("machine", "commission", machine.system_id)
            if meanwhile:
                meanwhile()
            self.wait_status(machine, "Ready", COMMISSION_S)
            self.wait_power(machine, "off", 120)
            seen = self.api.machine(machine.system_id)
            if seen["cpu_count"] < 1 or seen["memory"] < machine.memory_mb // 2 or not seen["blockdevice_set"]:
                raise RuntimeError(f"inventory is wrong: {seen['cpu_count']} CPUs, {seen['memory']} MiB, "
                                   f"{len(seen['blockdevice_set'])} disks")

    def allocate(self, machine):
        """Allocate to ourselves."""
        with self.steps.step(f"{machine.name} allocated"):
            answer = self.maas("machines", "allocate", f"system_id={machine.system_id}")
            if answer["status_name"] != "Allocated" or answer["owner"] != USER:
                raise RuntimeError(f"allocate answered {answer['status_name']}, owner {answer['owner']}")

    def deploy(self, machine, wait="Deployed", meanwhile=None):
        """Install the release, to Deployed (or to the status named). `meanwhile` is called once the order is given."""
        with self.steps.step(f"{machine.name} {wait.lower()}"):
            self.maas("machine", "deploy", machine.system_id, f"osystem={OS}", f"distro_series={RELEASE}")
            if meanwhile:
                meanwhile()
            self.wait_status(machine, wait, DEPLOY_S)

    def ssh(self, machine, command, limit=90):
        """Log in with our key at the address the region tells, and run a command; returns what it printed."""
        addresses = self.api.machine(machine.system_id)["ip_addresses"]
        address = next((a for a in addresses if a.startswith("10.77.0.")), None)
        if not address:
            raise RuntimeError(f"{machine.name} has no address on {Net.machines}: {addresses}")

        def login():
            done = subprocess.run(Net.command(self.lab.net.rack, [
                "ssh", "-i", str(self.key_path), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", f"{LOGIN}@{address}", command]),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode == 255:  # ssh itself; anything else is the command's own
                raise NotYet(done.stderr.strip() or "refused")
            if done.returncode != 0:
                raise RuntimeError(f"{command!r} on {machine.name}: exit status {done.returncode}: {done.stderr.strip()}")
            return done.stdout or "\n"

        return wait_for(f"SSH to {LOGIN}@{address}", limit, login, interval=2)

    def check_installed(self, machine):
        """Log in; it must be Debian, on the machine's own disk, as a user who may become root."""
        with self.steps.step(f"{machine.name} answers SSH with the key"):
            text = self.ssh(machine, ". /etc/os-release && echo $ID $VERSION_CODENAME && findmnt -no SOURCE / && sudo -n id -u && hostname")
            system, root, uid, hostname = text.split("\n")[:4]
            if system != f"{OS} {RELEASE}" or not root.startswith("/dev/") or uid != "0":
                raise RuntimeError(f"not the system that was asked for: {text!r}")
            expected = self.api.machine(machine.system_id)["hostname"]
            if hostname.split(".")[0] != expected:
                raise RuntimeError(f"the machine calls itself {hostname}, the region {expected}")

    def release(self, machine):
        """Release, to Ready and powered off, at the BMC as well."""
        with self.steps.step(f"{machine.name} released, Ready and powered off"):
            self.maas("machine", "release", machine.system_id)
            self.wait_status(machine, "Ready", RELEASE_S)
            self.wait_power(machine, "off", 60)

    # waiting

    def wait_status(self, machine, wanted, limit):
        """Wait for a status; one of the failed ones ends the wait at once."""

        def check():
            seen = self.api.machine(machine.system_id)
            status = seen["status_name"]
            if status == wanted:
                return seen
            said = f"{status}: {seen.get('status_message') or 'no message'}"
            if status in FAILED:
                raise RuntimeError(f"{machine.name} is {said}; {self._last_line(machine)}")
            raise NotYet(f"{said}; {self._last_line(machine)}")

        return wait_for(f"{machine.name} to be {wanted}", limit, check, interval=1)

    def wait_power(self, machine, wanted, limit):
        """Wait until the BMC itself says on or off."""

        def check():
            state = machine.bmc.power()
            if state != wanted:
                raise NotYet(f"{state}; {self._last_line(machine)}")
            return True

        wait_for(f"{machine.name}'s BMC to say {wanted}", limit, check, interval=1)

    # after a failure

    def print_boots(self, machine, last=40):
        """Print the boot timeline of a machine: every boot, and the last entries of each."""
        note = self.steps.note
        system_id = getattr(machine, "system_id", None)
        if self.api is None or system_id is None:
            note(f"{machine.name}: the region has no timeline of it; {self._last_line(machine)}")
            return
        try:
            boots = self.api.boots(system_id)
        except (OSError, ApiError) as e:
            note(f"{machine.name}: the boot timeline cannot be read: {e}")
            return
        boots = boots.get("boots", boots.get("items", [boots])) if isinstance(boots, dict) else boots
        note(f"boot timeline of {machine.name} ({system_id}), {len(boots)} boots; console: {machine.console_path}")
        for boot in boots:
            note("boot " + ", ".join(f"{k} {v}" for k, v in boot.items() if isinstance(v, (str, int)) and v != ""))
            entries = boot.get("entries", [])
            if len(entries) > last:
                note(f"  ... {len(entries) - last} earlier entries")
            for entry in entries[-last:]:
                when = entry.pop("first", entry.pop("time", ""))
                kind = entry.pop("kind", "")
                for name in ("last", "system_id", "mac", "ip"):
                    entry.pop(name, None)
                note(f"  {when} {kind:<9} " + " ".join(f"{k}={v}" for k, v in entry.items() if v not in (None, "")))

    # inside

    def _imported(self):
        resources = self.api.get("boot-resources/")
        busy = self.api.get("boot-resources/", op="is_importing")
        for resource in resources:
            if resource["name"] == f"{OS}/{RELEASE}":
                sets = self.api.get(f"boot-resources/{resource['id']}/")["sets"]
                newest = sets[max(sets)] if sets else None
                if newest and newest["complete"] and not busy:
                    return True
                raise NotYet(f"complete {newest and newest['complete']}, importing {busy}")
        raise NotYet(f"resources {[r['name'] for r in resources]}, importing {busy}")

    def _subnet(self):
        subnets = self.api.get("subnets/")
        for subnet in subnets:
            if subnet["cidr"] == Net.machines:
                return subnet
        raise NotYet(f"subnets {[s['cidr'] for s in subnets]}")

    @staticmethod
    def _last_line(machine):
        lines = [line.strip() for line in machine.console().splitlines() if line.strip()]
        return f"console: {lines[-1][-120:]!r}" if lines else "console: empty"
