-- Keep what outcomes come to whose rows are about to go: {found} is rollup_found.sql.

INSERT INTO litellm_ledger.expired_sums (
    quarter, model, provider, call, status, response_model, error, usage_source, cost_source,
    tag_name, tag_value, cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens,
    output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
)
SELECT
    quarter, model, provider, call, status, response_model, error, usage_source, cost_source,
    pg_catalog.substr(tag_name, 5), tag_value, cache_hits, cache_read_tokens, cache_write_tokens,
    calls, input_tokens, output_tokens, pico, priced, reasoning_tokens, retries, saved, total_tokens
FROM ({found}) AS f
