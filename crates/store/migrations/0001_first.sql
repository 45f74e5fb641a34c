-- The first schema. One text for both engines; the words that start with @ are replaced per engine
-- (see crates/store/src/migrate.rs): @id @int @bool @bytes @real @strict.

-- Settings, secrets, feed, jobs ---------------------------------------------------------------------

CREATE TABLE setting (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL                         -- JSON
) @strict;

CREATE TABLE secret (
    name TEXT NOT NULL PRIMARY KEY,
    sealed @bytes NOT NULL
) @strict;

CREATE TABLE change_feed (
    seq @id,
    xact @int NOT NULL DEFAULT @xact,
    noun TEXT NOT NULL,
    object TEXT NOT NULL,
    revision @int NOT NULL,
    at @int NOT NULL
) @strict;
CREATE INDEX change_feed_place ON change_feed (xact, seq);

-- One row. The epoch changes when the feed's history is replaced; what lies at or before the horizon was
-- trimmed away.
CREATE TABLE feed_state (
    id @int NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch @int NOT NULL,
    horizon_xact @int NOT NULL DEFAULT 0,
    horizon_seq @int NOT NULL DEFAULT 0
) @strict;

CREATE TABLE job (
    id @id,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,                      -- what it is about, for example a system id
    payload TEXT NOT NULL,                      -- JSON, no secrets
    state TEXT NOT NULL,                        -- waiting, running, done, failed, cancelled
    run_at @int NOT NULL,
    lease_owner TEXT,
    lease_until @int,
    attempt @int NOT NULL DEFAULT 0,            -- rises with every claim: the fence
    failures @int NOT NULL DEFAULT 0,           -- attempts whose owner died or that were to be tried again
    max_failures @int,
    poked @bool NOT NULL DEFAULT FALSE,         -- something happened while it ran: look again at once
    deadline @int,
    reason TEXT NOT NULL DEFAULT '',
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX job_due ON job (state, run_at);
CREATE INDEX job_subject ON job (subject, id);
CREATE UNIQUE INDEX job_one_active ON job (kind, subject) WHERE state IN ('waiting', 'running');

-- People and credentials ----------------------------------------------------------------------------

CREATE TABLE user_account (
    id @id,
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    is_superuser @bool NOT NULL,
    is_local @bool NOT NULL DEFAULT TRUE,
    created @int NOT NULL
) @strict;

CREATE TABLE sshkey (
    id @id,
    user_id @int NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    keysource TEXT,
    created @int NOT NULL,
    UNIQUE (user_id, key)
) @strict;

-- Places and networks -------------------------------------------------------------------------------

CREATE TABLE zone (
    id @id,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

CREATE TABLE resource_pool (
    id @id,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

CREATE TABLE domain (
    id @id,
    name TEXT NOT NULL UNIQUE,
    authoritative @bool NOT NULL DEFAULT TRUE,
    ttl @int,
    is_default @bool NOT NULL DEFAULT FALSE
) @strict;

CREATE TABLE fabric (
    id @id,
    name TEXT UNIQUE,
    class_type TEXT,
    description TEXT NOT NULL DEFAULT ''
) @strict;

CREATE TABLE space (
    id @id,
    name TEXT UNIQUE,
    description TEXT NOT NULL DEFAULT ''
) @strict;

CREATE TABLE vlan (
    id @id,
    fabric_id @int NOT NULL REFERENCES fabric (id) ON DELETE CASCADE,
    vid @int NOT NULL,
    name TEXT,
    description TEXT NOT NULL DEFAULT '',
    mtu @int NOT NULL DEFAULT 1500,
    dhcp_on @bool NOT NULL DEFAULT FALSE,
    primary_rack_id @int,                       -- node.id
    secondary_rack_id @int,                     -- node.id
    external_dhcp TEXT,
    relay_vlan_id @int REFERENCES vlan (id) ON DELETE SET NULL,
    space_id @int REFERENCES space (id) ON DELETE SET NULL,
    UNIQUE (fabric_id, vid)
) @strict;

CREATE TABLE subnet (
    id @id,
    vlan_id @int NOT NULL REFERENCES vlan (id),
    cidr TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    gateway_ip TEXT,
    dns_servers TEXT NOT NULL DEFAULT '[]',     -- JSON list
    rdns_mode @int NOT NULL DEFAULT 2,
    active_discovery @bool NOT NULL DEFAULT FALSE,
    allow_dns @bool NOT NULL DEFAULT TRUE,
    allow_proxy @bool NOT NULL DEFAULT TRUE,
    managed @bool NOT NULL DEFAULT TRUE,
    disabled_boot_architectures TEXT NOT NULL DEFAULT '[]',
    router_advertisements @bool NOT NULL DEFAULT FALSE
) @strict;
CREATE INDEX subnet_vlan ON subnet (vlan_id);

CREATE TABLE ip_range (
    id @id,
    subnet_id @int NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    type TEXT NOT NULL,                         -- dynamic, reserved
    start_ip TEXT NOT NULL,
    end_ip TEXT NOT NULL,
    comment TEXT NOT NULL DEFAULT '',
    user_id @int REFERENCES user_account (id) ON DELETE SET NULL
) @strict;
CREATE INDEX ip_range_subnet ON ip_range (subnet_id);

CREATE TABLE tag (
    id @id,
    name TEXT NOT NULL UNIQUE,
    comment TEXT NOT NULL DEFAULT '',
    definition TEXT NOT NULL DEFAULT '',
    kernel_opts TEXT NOT NULL DEFAULT '',
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

-- Nodes: machines, devices, controllers -------------------------------------------------------------

CREATE TABLE node (
    id @id,
    system_id TEXT NOT NULL UNIQUE,
    node_type @int NOT NULL,                    -- 0 machine, 1 device, 2 rack, 3 region, 4 region and rack
    revision @int NOT NULL DEFAULT 0,
    hostname TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    domain_id @int NOT NULL REFERENCES domain (id),
    zone_id @int NOT NULL REFERENCES zone (id),
    pool_id @int REFERENCES resource_pool (id),
    owner_id @int REFERENCES user_account (id),
    parent_id @int REFERENCES node (id) ON DELETE CASCADE,
    status @int NOT NULL,
    previous_status @int NOT NULL,
    status_since @int NOT NULL,
    status_expires @int,
    status_action TEXT NOT NULL DEFAULT '',
    status_message TEXT,
    error_description TEXT NOT NULL DEFAULT '',
    locked @bool NOT NULL DEFAULT FALSE,
    agent_name TEXT NOT NULL DEFAULT '',
    architecture TEXT,
    min_hwe_kernel TEXT NOT NULL DEFAULT '',
    hwe_kernel TEXT,
    hardware_uuid TEXT,
    cpu_count @int NOT NULL DEFAULT 0,
    cpu_speed @int NOT NULL DEFAULT 0,          -- MHz
    memory @int NOT NULL DEFAULT 0,             -- MiB
    swap_size @int,
    numa TEXT NOT NULL DEFAULT '[]',            -- JSON: [{index, memory, cores[], hugepages_set[]}]
    hardware_info TEXT NOT NULL DEFAULT '{}',   -- JSON: {key: text}
    bios_boot_method TEXT,
    boot_interface_id @int,
    boot_disk_id @int,
    boot_client_ip TEXT,                        -- where its boot configuration was last fetched from
    boot_client_at @int,
    boot_rack_ip TEXT,                          -- the rack address that served it
    netboot @bool NOT NULL DEFAULT TRUE,
    osystem TEXT NOT NULL DEFAULT '',
    distro_series TEXT NOT NULL DEFAULT '',
    ephemeral_deploy @bool NOT NULL DEFAULT FALSE,
    license_key TEXT NOT NULL DEFAULT '',
    user_data @bytes,
    install_attempt @int NOT NULL DEFAULT 0,
    power_type TEXT NOT NULL DEFAULT '',
    power_parameters @bytes,                    -- sealed JSON
    power_state TEXT NOT NULL DEFAULT 'unknown',
    power_state_updated @int,
    address_ttl @int,
    enlisting @bool NOT NULL DEFAULT FALSE,     -- commissioned as part of its enlistment: ends in New
    enable_ssh @bool NOT NULL DEFAULT FALSE,
    skip_bmc_config @bool NOT NULL DEFAULT FALSE,
    skip_networking @bool NOT NULL DEFAULT FALSE,
    skip_storage @bool NOT NULL DEFAULT FALSE,
    current_commissioning_set_id @int,
    current_testing_set_id @int,
    current_installation_set_id @int,
    current_release_set_id @int,
    default_gateway_v4_id @int,                 -- ip_address.id
    default_gateway_v6_id @int,
    enable_hw_sync @bool NOT NULL DEFAULT FALSE,
    sync_interval @int,
    last_sync @int,
    enable_kernel_crash_dump @bool NOT NULL DEFAULT FALSE,
    is_dpu @bool NOT NULL DEFAULT FALSE,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (domain_id, hostname)
) @strict;
CREATE INDEX node_status ON node (node_type, status);
CREATE INDEX node_owner ON node (owner_id);
CREATE INDEX node_expires ON node (status_expires);

CREATE TABLE owner_data (
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (node_id, key)
) @strict;

CREATE TABLE node_tag (
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    tag_id @int NOT NULL REFERENCES tag (id) ON DELETE CASCADE,
    PRIMARY KEY (node_id, tag_id)
) @strict;
CREATE INDEX node_tag_tag ON node_tag (tag_id);

CREATE TABLE token (
    id @id,
    consumer_key TEXT NOT NULL,
    token_key TEXT NOT NULL UNIQUE,
    sealed_secret @bytes NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    user_id @int REFERENCES user_account (id) ON DELETE CASCADE,
    node_id @int REFERENCES node (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL DEFAULT '',           -- node tokens: ephemeral, installed
    created @int NOT NULL
) @strict;
CREATE INDEX token_user ON token (user_id);
CREATE INDEX token_node ON token (node_id);

CREATE TABLE interface (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    type TEXT NOT NULL,                         -- physical, bond, bridge, vlan, alias, unknown
    mac TEXT,
    vlan_id @int REFERENCES vlan (id) ON DELETE SET NULL,
    enabled @bool NOT NULL DEFAULT TRUE,
    params TEXT NOT NULL DEFAULT '',            -- JSON object, or empty
    tags TEXT NOT NULL DEFAULT '[]',
    vendor TEXT,
    product TEXT,
    firmware_version TEXT,
    link_connected @bool NOT NULL DEFAULT TRUE,
    interface_speed @int NOT NULL DEFAULT 0,    -- Mbit/s
    link_speed @int NOT NULL DEFAULT 0,
    numa_index @int,
    sriov_max_vf @int NOT NULL DEFAULT 0,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (node_id, name)
) @strict;
CREATE UNIQUE INDEX interface_one_physical_mac ON interface (mac) WHERE type = 'physical';

CREATE TABLE interface_relation (
    parent_id @int NOT NULL REFERENCES interface (id) ON DELETE CASCADE,
    child_id @int NOT NULL REFERENCES interface (id) ON DELETE CASCADE,
    PRIMARY KEY (parent_id, child_id)
) @strict;
CREATE INDEX interface_relation_child ON interface_relation (child_id);

-- An address assigned to an interface (a link of the API) or reserved by a user. `ip` is null while an
-- AUTO link has none, and for link_up.
CREATE TABLE ip_address (
    id @id,
    ip TEXT,
    alloc_type @int NOT NULL,                   -- 0 auto, 1 sticky, 4 user reserved, 5 dhcp
    subnet_id @int REFERENCES subnet (id) ON DELETE CASCADE,
    interface_id @int REFERENCES interface (id) ON DELETE CASCADE,
    user_id @int REFERENCES user_account (id) ON DELETE CASCADE,
    hostname TEXT,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE UNIQUE INDEX ip_address_once ON ip_address (ip) WHERE ip IS NOT NULL;
CREATE INDEX ip_address_interface ON ip_address (interface_id);
CREATE INDEX ip_address_subnet ON ip_address (subnet_id);

-- A lease that a rack gave (the API's discovered addresses).
CREATE TABLE lease (
    ip TEXT NOT NULL PRIMARY KEY,
    mac TEXT NOT NULL,
    subnet_id @int NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    hostname TEXT,
    rack_id @int,
    until @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX lease_mac ON lease (mac);

CREATE TABLE block_device (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    type TEXT NOT NULL,                         -- physical, virtual
    name TEXT NOT NULL,
    id_path TEXT,
    size @int NOT NULL,                         -- bytes
    block_size @int NOT NULL,                   -- bytes
    model TEXT,
    serial TEXT,
    firmware_version TEXT,
    tags TEXT NOT NULL DEFAULT '[]',
    numa_index @int,
    uuid TEXT,
    partition_table_type TEXT,                  -- GPT, MBR
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (node_id, name)
) @strict;

CREATE TABLE partition (
    id @id,
    block_device_id @int NOT NULL REFERENCES block_device (id) ON DELETE CASCADE,
    number @int NOT NULL,
    uuid TEXT NOT NULL,
    size @int NOT NULL,
    bootable @bool NOT NULL DEFAULT FALSE,
    tags TEXT NOT NULL DEFAULT '[]',
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (block_device_id, number)
) @strict;

CREATE TABLE filesystem (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    block_device_id @int REFERENCES block_device (id) ON DELETE CASCADE,
    partition_id @int REFERENCES partition (id) ON DELETE CASCADE,
    fstype TEXT NOT NULL,
    label TEXT,
    uuid TEXT NOT NULL,
    mount_point TEXT,
    mount_options TEXT,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX filesystem_node ON filesystem (node_id);

-- Scripts -------------------------------------------------------------------------------------------

CREATE TABLE script (
    id @id,
    name TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    tags TEXT NOT NULL DEFAULT '[]',
    script_type @int NOT NULL,                  -- 0 commissioning, 2 testing, 3 release, 4 deployment
    hardware_type @int NOT NULL DEFAULT 0,      -- 0 node, 1 cpu, 2 memory, 3 storage, 4 network, 5 gpu
    parallel @int NOT NULL DEFAULT 0,           -- 0 no, 1 instances of itself, 2 any
    results TEXT NOT NULL DEFAULT '{}',
    parameters TEXT NOT NULL DEFAULT '{}',
    packages TEXT NOT NULL DEFAULT '{}',
    timeout @int NOT NULL DEFAULT 0,            -- seconds
    destructive @bool NOT NULL DEFAULT FALSE,
    is_default @bool NOT NULL DEFAULT FALSE,    -- comes with the product
    may_reboot @bool NOT NULL DEFAULT FALSE,
    recommission @bool NOT NULL DEFAULT FALSE,
    for_hardware TEXT NOT NULL DEFAULT '[]',
    apply_configured_networking @bool NOT NULL DEFAULT FALSE,
    current_version_id @int,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

CREATE TABLE script_version (
    id @id,
    script_id @int NOT NULL REFERENCES script (id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    comment TEXT NOT NULL DEFAULT '',
    created @int NOT NULL
) @strict;
CREATE INDEX script_version_script ON script_version (script_id);

CREATE TABLE script_set (
    id @id,
    node_id @int NOT NULL REFERENCES node (id) ON DELETE CASCADE,
    result_type @int NOT NULL,                  -- 0 commissioning, 1 installation, 2 testing, 3 release
    requested TEXT NOT NULL DEFAULT '[]',
    last_ping @int,
    power_state_before TEXT NOT NULL DEFAULT 'unknown',
    created @int NOT NULL
) @strict;
CREATE INDEX script_set_node ON script_set (node_id, result_type);

CREATE TABLE script_result (
    id @id,
    script_set_id @int NOT NULL REFERENCES script_set (id) ON DELETE CASCADE,
    script_id @int REFERENCES script (id) ON DELETE SET NULL,
    script_version_id @int REFERENCES script_version (id) ON DELETE SET NULL,
    script_name TEXT NOT NULL,
    status @int NOT NULL,
    exit_status @int,
    parameters TEXT NOT NULL DEFAULT '{}',
    output @bytes,
    stdout @bytes,
    stderr @bytes,
    result @bytes,
    interface_id @int REFERENCES interface (id) ON DELETE CASCADE,
    block_device_id @int REFERENCES block_device (id) ON DELETE CASCADE,
    suppressed @bool NOT NULL DEFAULT FALSE,
    started @int,
    ended @int,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE INDEX script_result_set ON script_result (script_set_id);

-- Events --------------------------------------------------------------------------------------------

CREATE TABLE event (
    id @id,
    type TEXT NOT NULL,
    level @int NOT NULL,                        -- 0 audit, 10 debug, 20 info, 30 warning, 40 error, 50 critical
    type_description TEXT NOT NULL,
    node_id @int,                               -- kept when the node goes
    node_system_id TEXT,
    node_hostname TEXT NOT NULL DEFAULT '',
    username TEXT NOT NULL DEFAULT '',
    ip_address TEXT,
    endpoint @int NOT NULL DEFAULT 0,           -- 0 API, 1 UI, 2 CLI
    user_agent TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    created @int NOT NULL
) @strict;
CREATE INDEX event_node ON event (node_id, id);
CREATE INDEX event_level ON event (level, id);

-- Images --------------------------------------------------------------------------------------------

CREATE TABLE boot_source (
    id @id,
    url TEXT NOT NULL UNIQUE,
    keyring_filename TEXT NOT NULL DEFAULT '',
    keyring_data @bytes,
    last_error TEXT NOT NULL DEFAULT '',
    synced @int,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

CREATE TABLE boot_source_selection (
    id @id,
    boot_source_id @int NOT NULL REFERENCES boot_source (id) ON DELETE CASCADE,
    os TEXT NOT NULL,
    release TEXT NOT NULL,
    arches TEXT NOT NULL DEFAULT '["*"]',
    subarches TEXT NOT NULL DEFAULT '["*"]',
    labels TEXT NOT NULL DEFAULT '["*"]',
    UNIQUE (boot_source_id, os, release)
) @strict;

-- What a source offers, flattened (wire-simplestreams CachedProduct as JSON).
CREATE TABLE boot_source_cache (
    id @id,
    boot_source_id @int NOT NULL REFERENCES boot_source (id) ON DELETE CASCADE,
    os TEXT NOT NULL,
    arch TEXT NOT NULL,
    subarch TEXT NOT NULL,
    release TEXT NOT NULL,
    label TEXT NOT NULL,
    product TEXT NOT NULL
) @strict;
CREATE INDEX boot_source_cache_source ON boot_source_cache (boot_source_id);

CREATE TABLE boot_resource (
    id @id,
    rtype @int NOT NULL,                        -- 0 synced, 2 uploaded
    name TEXT NOT NULL,                         -- os/release, or the name of an upload
    architecture TEXT NOT NULL,                 -- arch/subarch
    kflavor TEXT,
    bootloader_type TEXT,
    base_image TEXT NOT NULL DEFAULT '',
    extra TEXT NOT NULL DEFAULT '{}',
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
CREATE UNIQUE INDEX boot_resource_once ON boot_resource (rtype, name, architecture);

CREATE TABLE boot_resource_set (
    id @id,
    resource_id @int NOT NULL REFERENCES boot_resource (id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    label TEXT NOT NULL,
    created @int NOT NULL,
    UNIQUE (resource_id, version)
) @strict;

CREATE TABLE boot_resource_file (
    id @id,
    set_id @int NOT NULL REFERENCES boot_resource_set (id) ON DELETE CASCADE,
    filename TEXT NOT NULL,
    filetype TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size @int NOT NULL,
    extra TEXT NOT NULL DEFAULT '{}',
    UNIQUE (set_id, filename)
) @strict;
CREATE INDEX boot_resource_file_hash ON boot_resource_file (sha256);

-- Content by hash that a region holds (bytes so far; complete when bytes = size).
CREATE TABLE blob (
    sha256 TEXT NOT NULL,
    region TEXT NOT NULL,
    size @int NOT NULL,
    bytes @int NOT NULL,
    updated @int NOT NULL,
    PRIMARY KEY (sha256, region)
) @strict;

-- Controllers ---------------------------------------------------------------------------------------

CREATE TABLE rack_state (
    node_id @int NOT NULL PRIMARY KEY REFERENCES node (id) ON DELETE CASCADE,
    fingerprint TEXT UNIQUE,                    -- SHA-256 of its certificate; null in the all-in-one
    last_batch @int NOT NULL DEFAULT 0,
    services TEXT NOT NULL DEFAULT '{}',
    interfaces TEXT NOT NULL DEFAULT '[]',
    program TEXT NOT NULL DEFAULT '',
    connected_region TEXT,
    last_seen @int
) @strict;

CREATE TABLE rack_enrolment (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    expires @int NOT NULL,
    used @int,
    created_by TEXT NOT NULL
) @strict;

-- What stands from the start ------------------------------------------------------------------------

INSERT INTO zone (name, created, updated) VALUES ('default', 0, 0);
INSERT INTO resource_pool (id, name, description, created, updated) VALUES (0, 'default', 'Default pool', 0, 0);
INSERT INTO domain (id, name, is_default) VALUES (0, 'maas', TRUE);
INSERT INTO fabric (id, name) VALUES (0, NULL);
INSERT INTO vlan (fabric_id, vid) VALUES (0, 0);
