-- VM hosts; the second face of the API.

-- What was begun with a machine over our own face of the API, to be watched until it ends.
CREATE TABLE operation (
    id @id,
    kind TEXT NOT NULL,
    node_id @int REFERENCES node (id) ON DELETE SET NULL,
    system_id TEXT NOT NULL,
    user_id @int,
    username TEXT NOT NULL,
    job_id @int,                                -- the command that decides, for power
    state TEXT NOT NULL,                        -- running, succeeded, failed, cancelled
    reason TEXT NOT NULL DEFAULT '',
    started @int NOT NULL,
    ended @int
) @strict;
CREATE INDEX operation_of_node ON operation (node_id, state);
CREATE INDEX operation_of_user ON operation (user_id, id);

-- A conditional write asks whether its object changed.
CREATE INDEX change_feed_object ON change_feed (object);
