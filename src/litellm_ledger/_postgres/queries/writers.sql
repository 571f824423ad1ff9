-- How far each writer is shipped, and what was accepted beyond, as far as anybody has said.

SELECT
    writer_id,
    writer,
    shipped,
    greatest(coalesce(accepted, 0) - shipped, 0) AS behind,
    updated_at,
    closed
FROM litellm_ledger.writers
