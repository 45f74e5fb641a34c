"""A client of MAAS that people have programs on, python-libmaas, against our region: URL KEY MACHINE PASSWORD.

Walks through every noun that the library knows but pods, which we do not have yet, and looks at what the library made of our answers. MACHINE is the
system id of a Ready machine with a disk that has a partition. Any failure is an exception.
"""

import asyncio
import sys

from maas.client import connect, login
from maas.client.bones import CallError
from maas.client.enum import InterfaceType, IPRangeType, LinkMode, NodeStatus, RaidLevel

URL, KEY, MACHINE, USER, PASSWORD = sys.argv[1:]


def same(seen, expected):
    if seen != expected:
        raise AssertionError(f"{seen!r} is not {expected!r}")


def names(things, attribute="name"):
    return [getattr(t, attribute) for t in things]


async def refused(status, call):
    try:
        await call
    except CallError as error:
        same(error.status, status)
    else:
        raise AssertionError(f"this was not refused with {status}")


async def account(c):
    c2 = await login(URL, username=USER, password=PASSWORD)
    same((await c2.users.whoami()).username, USER)
    credentials = await c.account.create_credentials()
    again = await connect(URL, apikey=str(credentials))
    same((await again.users.whoami()).username, USER)
    await c.account.delete_credentials(credentials)
    # A token that was deleted stops working at once.
    await refused(401, again.users.whoami())
    bob = await c.users.create("bob", "a password", email="bob@example.com", is_admin=False)
    assert not bob.is_admin and "bob" in names(await c.users.list(), "username")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJqF3W8v1k4b1n9Qm5r0n2o6xk9Zs2fT3m8c7y1hA4K me"
    await c.ssh_keys.create(key)
    same(names(await c.ssh_keys.list(), "key"), [key])
    version = await c.version.get()
    assert version.version and "networks-management" in version.capabilities


async def places(c):
    zone = await c.zones.create("attic", description="up there")
    assert "attic" in names(await c.zones.list())
    zone.description = "down"
    await zone.save()
    same((await c.zones.get("attic")).description, "down")
    pool = await c.resource_pools.create("fish", "water")
    assert "fish" in names(await c.resource_pools.list())
    return zone, pool


async def networks(c):
    fabric = await c.fabrics.create(name="weave", class_type="10g")
    assert "weave" in names(await c.fabrics.list())
    vlan = await fabric.vlans.create(100, name="hundred")
    same((await c.fabrics.get(fabric.id)).vlans.get_default().vid, 0)
    vlan.mtu = 9000
    await vlan.save()
    space = await c.spaces.create(name="outer")
    assert "outer" in names(await c.spaces.list())
    subnet = await c.subnets.create("10.3.0.0/24", vlan, name="third", gateway_ip="10.3.0.1")
    assert "third" in names(await c.subnets.list())
    subnet = await c.subnets.get(subnet.id)
    same((subnet.cidr, subnet.gateway_ip, subnet.vlan.vid, subnet.vlan.mtu), ("10.3.0.0/24", "10.3.0.1", 100, 9000))
    reserved = await c.ip_ranges.create("10.3.0.10", "10.3.0.20", type=IPRangeType.RESERVED, comment="theirs")
    same([(r.start_ip, r.end_ip, r.type) for r in await c.ip_ranges.list()], [("10.3.0.10", "10.3.0.20", IPRangeType.RESERVED)])
    await reserved.delete()
    other = await c.subnets.create("10.4.0.0/24", vlan)
    route = await c.static_routes.create(other, subnet, "10.3.0.9", 5)
    same(names(await c.static_routes.list(), "gateway_ip"), ["10.3.0.9"])
    await route.delete()
    domain = await c.domains.create("example.org", ttl=60)
    assert "example.org" in names(await c.domains.list())
    await domain.delete()
    await space.delete()
    return subnet


async def rest(c):
    await c.maas.set_name("lab")
    same(await c.maas.get_name(), "lab")
    same(await c.maas.get_enable_http_proxy(), True)
    await c.maas.set_upstream_dns(["192.0.2.53"])
    same(await c.maas.get_upstream_dns(), ["192.0.2.53"])
    source = await c.boot_sources.create("http://127.0.0.1:1/", keyring_filename="/keys")
    assert source.id in names(await c.boot_sources.list(), "id")
    await source.delete()
    assert len(await c.boot_resources.list()) >= 1
    same(list(await c.files.list()), [])
    # Only the API runs here: there are none, and an empty list is an answer that can be read.
    same([list(await c.region_controllers.list()), list(await c.rack_controllers.list())], [[], []])
    device = await c.devices.create(["52:54:ff:00:01:01"], hostname="printer")
    assert "printer" in names(await c.devices.list(), "hostname")
    await device.delete()
    tag = await c.tags.create("fast", comment="quick ones")
    assert "fast" in names(await c.tags.list())
    return tag


async def machine_of(c, zone, pool, tag, subnet):
    m = await c.machines.get(MACHINE)
    same(m.status, NodeStatus.READY)
    m.zone, m.pool = zone, pool
    await m.save()
    await m.tags.add(tag)
    m = await c.machines.get(MACHINE)
    same((m.zone.name, m.pool.name, names(m.tags)), ("attic", "fish", ["fast"]))
    await m.set_power("manual", {})
    same(await m.get_power_parameters(), {})
    assert MACHINE in await c.machines.get_power_parameters_for(system_ids=[MACHINE])
    # Only its owner may say that it is broken, also among administrators.
    await refused(403, m.mark_broken(comment="odd"))
    await interfaces(m, subnet)
    await disks(m)
    m = await c.machines.allocate(hostname=m.hostname, agent_name="walk", comment="for the test")
    same((m.status, m.owner.username, m.system_id), (NodeStatus.ALLOCATED, USER, MACHINE))
    await m.mark_broken(comment="odd")
    same(m.status, NodeStatus.BROKEN)
    await m.mark_fixed()
    same(m.status, NodeStatus.READY)
    m = await c.machines.allocate(hostname=m.hostname)
    await m.deploy(wait=False)
    same(m.status, NodeStatus.DEPLOYING)
    await m.release(wait=False)
    m = await c.machines.get(MACHINE)
    same((m.status, m.owner), (NodeStatus.READY, None))
    await m.commission(wait=False)
    same(m.status, NodeStatus.COMMISSIONING)
    await m.abort()
    m = await c.machines.get(MACHINE)
    assert m.status in (NodeStatus.NEW, NodeStatus.READY), m.status
    events = await c.events.query()
    assert any(e.system_id == MACHINE for e in events)
    details = await m.get_details()
    same(sorted(details), ["lldp", "lshw"])


async def interfaces(m, subnet):
    card = m.interfaces[0]
    await card.links.create(LinkMode.AUTO, subnet=subnet, force=True)
    bridge = await m.interfaces.create(InterfaceType.BRIDGE, name="br0", parent=card)
    await m.refresh()
    same(m.interfaces.by_name["br0"].type, InterfaceType.BRIDGE)
    same(names(m.interfaces.by_name["br0"].parents), [card.name])
    await bridge.delete()
    await m.refresh()
    assert "br0" not in m.interfaces.by_name


async def disks(m):
    spare = [await m.block_devices.create(name=n, model="m", serial=n, size=20 << 30, block_size=512) for n in ("sdx", "sdy", "sdz")]
    await m.refresh()
    disk = m.block_devices.by_name["sdx"]
    part = await disk.partitions.create(8 << 30)
    await part.format("ext4")
    await part.mount("/srv")
    same(part.filesystem.mount_point, "/srv")
    await part.umount()
    await part.unformat()
    await part.delete()
    group = await m.volume_groups.create("vg0", [m.block_devices.by_name["sdx"]])
    volume = await group.logical_volumes.create("lv0", 4 << 30)
    same(volume.name, "vg0-lv0")
    await volume.delete()
    await group.delete()
    raid = await m.raids.create(RaidLevel.RAID_1, [m.block_devices.by_name[n] for n in ("sdx", "sdy")], name="md0", spare_devices=[])
    same((raid.level, raid.name), (RaidLevel.RAID_1, "md0"))
    await raid.delete()
    for disk in spare:
        await disk.delete()


async def main():
    c = await connect(URL, apikey=KEY)
    await account(c)
    zone, pool = await places(c)
    subnet = await networks(c)
    tag = await rest(c)
    new = await c.machines.create("amd64", ["52:54:ff:00:00:01"], "manual", {}, hostname="made")
    same((new.hostname, new.status), ("made", NodeStatus.COMMISSIONING))
    assert {"made"} <= set(names(await c.machines.list(), "hostname"))
    await new.delete()
    await machine_of(c, zone, pool, tag, subnet)
    print("the walk is over")


asyncio.run(main())
