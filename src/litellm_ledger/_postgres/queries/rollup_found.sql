-- What outcomes come to, by quarter of an hour and group.  {rows} gives each of them as c, with r.series
-- and r.sign; {quarter} is the quarter of c.ts.

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
