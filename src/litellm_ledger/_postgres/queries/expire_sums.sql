-- Keep what outcomes come to whose rows are about to go: {found} is rollup_found.sql.

INSERT INTO litellm_ledger.expired_sums (
    quarter, model, provider, call, status, response_model, error, usage_source, cost_source,
    tag_name, tag_value, cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens,
    output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
)
SELECT
    quarter, model, provider, call, status, response_model, error, usage_source, cost_source,
    pg_catalog.substr(tag_name, 5), tag_value, coalesce(cache_hits, 0),
    coalesce(cache_read_tokens, 0), coalesce(cache_write_tokens, 0), calls,
    coalesce(input_tokens, 0), coalesce(output_tokens, 0), coalesce(pico, 0), coalesce(priced, 0),
    coalesce(reasoning_tokens, 0), coalesce(retries, 0), coalesce(saved, 0),
    coalesce(total_tokens, 0)
FROM ({found}) AS f
