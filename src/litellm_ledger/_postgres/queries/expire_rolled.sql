-- Move sums of some quarters to those of what expired; those by other tags go.
-- $1: the tags that stay known; $2, $3: the first and the last quarter.

WITH gone AS (
    DELETE FROM litellm_ledger.rollup_15m t WHERE t.quarter BETWEEN $2::int AND $3::int RETURNING *
)
INSERT INTO litellm_ledger.expired_sums (
    quarter, model, provider, call, status, response_model, error, usage_source, cost_source,
    tag_name, tag_value, cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens,
    output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
)
SELECT
    t.quarter, g.model, g.provider, g.call, g.status, g.response_model, g.error, g.usage_source,
    g.cost_source, g.tag_name, g.tag_value, t.cache_hits, t.cache_read_tokens, t.cache_write_tokens,
    t.calls, t.input_tokens, t.output_tokens, t.pico, t.priced, t.reasoning_tokens, t.retries,
    t.saved, t.total_tokens
FROM gone t JOIN litellm_ledger.rollup_groups g USING (group_id)
WHERE t.calls <> 0 AND (g.tag_name IS NULL OR g.tag_name = ANY($1::text[]))
