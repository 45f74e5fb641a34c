"""Region and rack as two processes on two hosts: the region in a namespace of its own (REGION_APART = True)."""

from .netns import Net
from .steps import NotYet, wait_for

# Where the region listens for racks.
LINK = f"{Net.region_address}:5250"


def processes(lab):
    """The region and the rack, neither started."""
    listen = f"{Net.region_address}:5240"
    region = lab.steelyard("region", namespace=lab.net.region, listen=listen,
                           arguments=["up", "--role", "region", "--data-dir", lab.directory / "region-data",
                                      "--listen", listen, "--link-listen", LINK, "--no-default-images"])
    rack = lab.steelyard("rack", arguments=["up", "--role", "rack", "--data-dir", lab.directory / "rack-data"])
    return region, rack


def register(region, rack):
    """Enrol the rack with a one-time secret of the region; returns the secret, which is spent."""
    secret = region.steelyard("rack-secret").strip()
    said = rack.command("maas-rack", "register", "--url", f"http://{region.listen}/MAAS", "--secret", secret, "--data-dir", rack.data)
    if LINK not in said:
        raise RuntimeError(f"register said {said!r}")
    return secret


def connected(region):
    """Whether a rack is connected to the region, as `wait_for` asks."""
    text = region.steelyard("status")
    racks = next((line for line in text.splitlines() if line.strip().startswith("racks")), "")
    if not racks or "none" in racks:
        raise NotYet(text)
    return True


def wait_connected(region, limit=60):
    """Wait until a rack is connected to the region."""
    wait_for("the rack's connection", limit, lambda: connected(region))
