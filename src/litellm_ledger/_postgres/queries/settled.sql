-- Calls in flight end whose outcomes name them by a text of their own.
-- $1: the writer, $2: the names, $3: which attempt of each.

DELETE FROM litellm_ledger.in_flight f
USING unnest($2::text[], $3::bigint[]) AS ended (name, attempt)
WHERE f.writer_id = $1 AND f.operation = ended.name AND coalesce(f.attempt, 1) = ended.attempt
