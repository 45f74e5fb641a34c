-- Storage: partitions, volume groups, RAID, bcache, VMFS.

-- Devices in front of a slow one. Its devices are file systems of the type bcache-cache.
CREATE TABLE cache_set (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX cache_set_node ON cache_set (node_id);

-- What is made of several devices: a volume group, a RAID, a bcache device, a VMFS datastore. Its members
-- are file systems of the types lvm-pv, raid, raid-spare, bcache-backing and vmfs6.
CREATE TABLE filesystem_group (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    type TEXT NOT NULL,                         -- lvm-vg, raid-0 … raid-10, bcache, vmfs6
    name TEXT NOT NULL,
    uuid TEXT NOT NULL,
    cache_mode TEXT,                            -- bcache: writeback, writethrough, writearound
    cache_set_id @int REFERENCES cache_set (id),
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX filesystem_group_node ON filesystem_group (node_id);

ALTER TABLE filesystem ADD COLUMN group_id @int REFERENCES filesystem_group (id) ON DELETE CASCADE;
ALTER TABLE filesystem ADD COLUMN cache_set_id @int REFERENCES cache_set (id) ON DELETE CASCADE;
-- A device belongs to one thing.
CREATE UNIQUE INDEX filesystem_one_per_disk ON filesystem (block_device_id) WHERE block_device_id IS NOT NULL;
CREATE UNIQUE INDEX filesystem_one_per_partition ON filesystem (partition_id) WHERE partition_id IS NOT NULL;
-- The group that a virtual device is made of.
ALTER TABLE block_device ADD COLUMN group_id @int REFERENCES filesystem_group (id) ON DELETE CASCADE;
