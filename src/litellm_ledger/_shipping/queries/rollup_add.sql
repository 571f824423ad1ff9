-- Add outcomes to the sums of their groups, or take them out.  {rows} gives each of them as c, with
-- r.series and r.sign.  A group that another leader makes at this moment is waited for and found.
-- How many groups of how many quarters there were, and into how many rows of sums they went.

WITH found AS MATERIALIZED (
    SELECT
        c.model, c.provider, c.call, c.status, c.response_model, c.error, c.usage_source,
        c.cost_source,
        nullif(r.series, '') AS tag_name,
        c.tags ->> pg_catalog.substr(nullif(r.series, ''), 5) AS tag_value,
        {quarter} AS quarter,
        sum(r.sign * (c.cache_hit IS TRUE)::int) AS cache_hits,
        sum(r.sign * c.cache_read_tokens) AS cache_read_tokens,
        sum(r.sign * c.cache_write_tokens) AS cache_write_tokens,
        sum(r.sign) AS calls,
        sum(r.sign * c.input_tokens) AS input_tokens,
        sum(r.sign * c.output_tokens) AS output_tokens,
        sum(r.sign * c.cost_picousd::numeric) AS pico,
        sum(r.sign * (c.cost_picousd IS NOT NULL)::int) AS priced,
        sum(r.sign * c.reasoning_tokens) AS reasoning_tokens,
        sum(r.sign * (c.attempt > 1)::int) AS retries,
        sum(r.sign * c.saved_cost_picousd::numeric) AS saved,
        sum(r.sign * c.total_tokens) AS total_tokens
    FROM {rows}
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
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
        quarter, group_id, coalesce(cache_hits, 0), coalesce(cache_read_tokens, 0),
        coalesce(cache_write_tokens, 0), calls, coalesce(input_tokens, 0),
        coalesce(output_tokens, 0), coalesce(pico, 0), coalesce(priced, 0),
        coalesce(reasoning_tokens, 0), coalesce(retries, 0), coalesce(saved, 0),
        coalesce(total_tokens, 0)
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
