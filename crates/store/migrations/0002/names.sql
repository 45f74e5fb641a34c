-- Names and texts: DNS, snippets, repositories, files, notifications.

ALTER TABLE domain ADD COLUMN forward_dns_servers TEXT NOT NULL DEFAULT '[]';  -- JSON list of address[:port]

CREATE TABLE dns_state (
    id @int NOT NULL PRIMARY KEY CHECK (id = 1),
    serial @int NOT NULL
) @strict;
INSERT INTO dns_state (id, serial) VALUES (1, 1);

CREATE TABLE dns_resource (
    id @id,
    name TEXT NOT NULL,
    domain_id @int NOT NULL REFERENCES domain (id),
    address_ttl @int,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (domain_id, name)
) @strict;

-- Addresses of a name. `made` ones were reserved for it and go with it.
CREATE TABLE dns_resource_address (
    resource_id @int NOT NULL REFERENCES dns_resource (id) ON DELETE CASCADE,
    ip_address_id @int NOT NULL REFERENCES ip_address (id) ON DELETE CASCADE,
    made @bool NOT NULL,
    PRIMARY KEY (resource_id, ip_address_id)
) @strict;
CREATE INDEX dns_resource_address_ip ON dns_resource_address (ip_address_id);

CREATE TABLE dns_data (
    id @id,
    resource_id @int NOT NULL REFERENCES dns_resource (id) ON DELETE CASCADE,
    ttl @int,
    rrtype TEXT NOT NULL,
    rrdata TEXT NOT NULL,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (resource_id, rrtype, rrdata)
) @strict;

CREATE TABLE package_repository (
    id @id,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    distributions TEXT NOT NULL DEFAULT '[]',
    disabled_pockets TEXT NOT NULL DEFAULT '[]',
    disabled_components TEXT NOT NULL DEFAULT '[]',
    disable_sources @bool NOT NULL DEFAULT TRUE,
    components TEXT NOT NULL DEFAULT '[]',
    arches TEXT NOT NULL DEFAULT '["amd64","i386"]',
    key TEXT NOT NULL DEFAULT '',
    is_default @bool NOT NULL DEFAULT FALSE,
    enabled @bool NOT NULL DEFAULT TRUE,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
INSERT INTO package_repository (name, url, is_default, created, updated)
    VALUES ('main_archive', 'http://archive.ubuntu.com/ubuntu', TRUE, 0, 0);
INSERT INTO package_repository (name, url, arches, is_default, created, updated)
    VALUES ('ports_archive', 'http://ports.ubuntu.com/ubuntu-ports', '["armhf","arm64","ppc64el","s390x"]', TRUE, 0, 0);

CREATE TABLE sslkey (
    id @id,
    user_id @int NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    created @int NOT NULL,
    UNIQUE (user_id, key)
) @strict;

CREATE TABLE license_key (
    id @id,
    osystem TEXT NOT NULL,
    distro_series TEXT NOT NULL,
    sealed @bytes NOT NULL,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (osystem, distro_series)
) @strict;

CREATE TABLE notification (
    id @id,
    ident TEXT UNIQUE,
    user_id @int REFERENCES user_account (id) ON DELETE CASCADE,
    users @bool NOT NULL DEFAULT FALSE,
    admins @bool NOT NULL DEFAULT FALSE,
    message TEXT NOT NULL,
    context TEXT NOT NULL DEFAULT '{}',         -- JSON object
    category TEXT NOT NULL DEFAULT 'info',
    dismissable @bool NOT NULL DEFAULT TRUE,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

CREATE TABLE notification_dismissal (
    notification_id @int NOT NULL REFERENCES notification (id) ON DELETE CASCADE,
    user_id @int NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,
    created @int NOT NULL,
    PRIMARY KEY (notification_id, user_id)
) @strict;

CREATE TABLE file (
    id @id,
    user_id @int NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,
    filename TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,                   -- whoever knows it may read the file
    content @bytes NOT NULL,
    created @int NOT NULL,
    updated @int NOT NULL,
    UNIQUE (user_id, filename)
) @strict;

CREATE TABLE dhcp_snippet (
    id @id,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    enabled @bool NOT NULL DEFAULT TRUE,
    node_id @int REFERENCES node (id) ON DELETE CASCADE,
    subnet_id @int REFERENCES subnet (id) ON DELETE CASCADE,
    ip_range_id @int REFERENCES ip_range (id) ON DELETE CASCADE,
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;

-- Every text that a snippet had; the newest is in force.
CREATE TABLE dhcp_snippet_value (
    id @id,
    snippet_id @int NOT NULL REFERENCES dhcp_snippet (id) ON DELETE CASCADE,
    value TEXT NOT NULL,
    created @int NOT NULL
) @strict;
CREATE INDEX dhcp_snippet_value_snippet ON dhcp_snippet_value (snippet_id, id);

-- Images that administrators bring and whose content has not all come yet: one at a time for each.
CREATE TABLE boot_resource_upload (
    id @id,
    resource_id @int NOT NULL UNIQUE REFERENCES boot_resource (id) ON DELETE CASCADE,
    version TEXT NOT NULL,
    filename TEXT NOT NULL,
    filetype TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size @int NOT NULL,
    bytes @int NOT NULL,                        -- how many of them count
    keep_old @bool NOT NULL,
    region TEXT NOT NULL,                       -- where they lie
    created @int NOT NULL,
    updated @int NOT NULL
) @strict;
