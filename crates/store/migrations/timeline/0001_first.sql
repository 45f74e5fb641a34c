-- The timeline of boots: append-only, outside the change feed; on SQLite a file of its own. Same words as in
-- the main schema, see crates/store/src/dialect.rs.

CREATE TABLE boot (
    id @id,
    number @int NOT NULL,                       -- which boot of this machine, from 1
    system_id TEXT,                             -- null until the machine is enlisted
    mac TEXT,
    started @int NOT NULL,
    last @int NOT NULL,
    ended @int,                                 -- null while it is the machine's current boot
    stage @int NOT NULL,                        -- 0 nothing heard, 1 loading, 2 running
    entries @int NOT NULL,
    bytes @int NOT NULL,
    dropped @int NOT NULL                       -- seen but not kept
) @strict;
CREATE INDEX boot_system ON boot (system_id, id);
CREATE INDEX boot_mac ON boot (mac, id);

CREATE TABLE boot_entry (
    boot_id @int NOT NULL REFERENCES boot (id) ON DELETE CASCADE,
    n @int NOT NULL,
    body TEXT NOT NULL,                         -- JSON of metal::timeline::Entry
    PRIMARY KEY (boot_id, n)
) @strict;

-- The last batch stored from each sender.
CREATE TABLE timeline_source (
    name TEXT NOT NULL PRIMARY KEY,
    last @int NOT NULL
) @strict;
