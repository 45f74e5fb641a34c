-- Networks: spaces, routes, reservations.

CREATE TABLE static_route (
    id @id,
    source_id @int NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    destination_id @int NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    gateway_ip TEXT NOT NULL,
    metric @int NOT NULL DEFAULT 0,
    UNIQUE (source_id, destination_id, gateway_ip)
) @strict;

-- An address that belongs to one hardware address, whether or not a machine with it is known.
CREATE TABLE reserved_ip (
    id @id,
    subnet_id @int NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    ip TEXT NOT NULL UNIQUE,
    mac TEXT NOT NULL,
    comment TEXT NOT NULL DEFAULT '',
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (subnet_id, mac)
) @strict;
CREATE INDEX reserved_ip_mac ON reserved_ip (mac);

-- The hardware address that a user reserved an address for.
ALTER TABLE ip_address ADD COLUMN mac TEXT;

-- Addresses that a rack saw in use on one of its interfaces.
CREATE TABLE neighbour (
    id @id,
    interface_id @int NOT NULL REFERENCES interface (id) ON DELETE CASCADE,
    ip TEXT NOT NULL,
    mac TEXT NOT NULL,
    vid @int,
    first_seen @int NOT NULL,
    last_seen @int NOT NULL,
    UNIQUE (interface_id, ip, mac)
) @strict;
CREATE INDEX neighbour_ip ON neighbour (ip);

-- Names that hosts announce by multicast DNS.
CREATE TABLE mdns_name (
    id @id,
    interface_id @int NOT NULL REFERENCES interface (id) ON DELETE CASCADE,
    ip TEXT NOT NULL,
    hostname TEXT NOT NULL,
    updated @int NOT NULL,
    UNIQUE (interface_id, ip)
) @strict;
CREATE INDEX mdns_name_ip ON mdns_name (ip);

-- A bridge that was made while somebody had the machine: it ends with the allocation.
ALTER TABLE interface ADD COLUMN acquired @bool NOT NULL DEFAULT FALSE;
