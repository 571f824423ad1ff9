-- Add outcomes to the sums of their groups, or take them out: {found} is rollup_found.sql.  A group
-- that another leader makes at this moment is waited for and found.
-- How many groups of how many quarters there were, and into how many rows of sums they went.

WITH found AS MATERIALIZED (
{found}
),
named AS MATERIALIZED (
    SELECT
        pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.jsonb_build_array(
            model, provider, call, status, response_model, error, usage_source, cost_source,
            tag_name, tag_value
        )::text, 'UTF8')) AS digest,
        *
    FROM found
),
known AS (
    SELECT digest, group_id FROM litellm_ledger.rollup_groups
    WHERE digest IN (SELECT digest FROM named)
),
made AS (
    INSERT INTO litellm_ledger.rollup_groups (
        digest, model, provider, call, status, response_model, error, usage_source, cost_source,
        tag_name, tag_value
    )
    SELECT DISTINCT ON (digest)
        digest, model, provider, call, status, response_model, error, usage_source, cost_source,
        pg_catalog.substr(tag_name, 5), tag_value
    FROM named WHERE digest NOT IN (SELECT digest FROM known)
    ORDER BY digest
    ON CONFLICT (digest) DO UPDATE SET digest = EXCLUDED.digest
    RETURNING digest, group_id
),
put AS (
    INSERT INTO litellm_ledger.rollup_15m AS t (
        quarter, group_id, cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens,
        output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
    )
    SELECT
        quarter, group_id, cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens,
        output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
    FROM named
    JOIN (SELECT * FROM known UNION ALL SELECT * FROM made) AS ids USING (digest)
    ORDER BY quarter, group_id
    ON CONFLICT (quarter, group_id) DO UPDATE SET
        cache_hits = t.cache_hits + EXCLUDED.cache_hits,
        cache_read_tokens = t.cache_read_tokens + EXCLUDED.cache_read_tokens,
        cache_write_tokens = t.cache_write_tokens + EXCLUDED.cache_write_tokens,
        calls = t.calls + EXCLUDED.calls,
        input_tokens = t.input_tokens + EXCLUDED.input_tokens,
        output_tokens = t.output_tokens + EXCLUDED.output_tokens,
        pico = t.pico + EXCLUDED.pico,
        priced = t.priced + EXCLUDED.priced,
        reasoning_tokens = t.reasoning_tokens + EXCLUDED.reasoning_tokens,
        retries = t.retries + EXCLUDED.retries,
        saved = t.saved + EXCLUDED.saved,
        total_tokens = t.total_tokens + EXCLUDED.total_tokens
    RETURNING 1
)
SELECT (SELECT count(*) FROM named), (SELECT count(*) FROM put)
