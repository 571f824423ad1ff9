-- How far writers are.  $1: their names.

SELECT writer, writer_id, shipped, unsettled, closed, accepted
FROM litellm_ledger.writers
WHERE writer = ANY($1)
