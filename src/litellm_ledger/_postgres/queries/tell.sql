-- What is known of writers that have nothing to ship.
-- $1: their ids, $2: the last number that each has accepted, $3: whether it is closed, and all is here.

UPDATE litellm_ledger.writers w
SET
    accepted = greatest(w.accepted, said.accepted),
    closed = w.closed OR said.closed,
    updated_at = pg_catalog.clock_timestamp()
FROM unnest($1::int[], $2::bigint[], $3::boolean[]) AS said (writer_id, accepted, closed)
WHERE w.writer_id = said.writer_id
