-- Nodes: devices, scripts, results, annotations.

-- What sits on the buses of a node.
CREATE TABLE node_device (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    bus @int NOT NULL,                          -- 1 PCIE, 2 USB
    hardware_type @int NOT NULL DEFAULT 0,
    numa_index @int NOT NULL DEFAULT 0,
    block_device_id @int REFERENCES block_device (id) ON DELETE SET NULL,
    interface_id @int REFERENCES interface (id) ON DELETE SET NULL,
    vendor_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    vendor_name TEXT NOT NULL DEFAULT '',
    product_name TEXT NOT NULL DEFAULT '',
    commissioning_driver TEXT NOT NULL DEFAULT '',
    bus_number @int NOT NULL,
    device_number @int NOT NULL,
    pci_address TEXT,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX node_device_node ON node_device (node_id);

-- Where a machine goes back to when its test or its rescue ends.
ALTER TABLE node ADD COLUMN return_status @int;
-- Whether its owner is only whoever has it in rescue mode.
ALTER TABLE node ADD COLUMN lent @bool NOT NULL DEFAULT FALSE;
