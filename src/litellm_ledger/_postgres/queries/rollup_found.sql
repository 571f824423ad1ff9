-- What outcomes come to, by quarter of an hour and group.  {rows} gives each of them as c, with r.series
-- and r.sign; {quarter} is the quarter of c.ts.

SELECT
    c.model, c.provider, c.call, c.status, c.response_model, c.error, c.usage_source,
    c.cost_source,
    nullif(r.series, '') AS tag_name,
    c.tags ->> pg_catalog.substr(nullif(r.series, ''), 5) AS tag_value,
    {quarter} AS quarter,
    coalesce(sum(r.sign * (c.cache_hit IS TRUE)::int), 0) AS cache_hits,
    coalesce(sum(r.sign * c.cache_read_tokens), 0) AS cache_read_tokens,
    coalesce(sum(r.sign * c.cache_write_tokens), 0) AS cache_write_tokens,
    sum(r.sign) AS calls,
    coalesce(sum(r.sign * c.input_tokens), 0) AS input_tokens,
    coalesce(sum(r.sign * c.output_tokens), 0) AS output_tokens,
    coalesce(sum(r.sign * c.cost_picousd::numeric), 0) AS pico,
    coalesce(sum(r.sign * (c.cost_picousd IS NOT NULL)::int), 0) AS priced,
    coalesce(sum(r.sign * c.reasoning_tokens), 0) AS reasoning_tokens,
    coalesce(sum(r.sign * (c.attempt > 1)::int), 0) AS retries,
    coalesce(sum(r.sign * c.saved_cost_picousd::numeric), 0) AS saved,
    coalesce(sum(r.sign * c.total_tokens), 0) AS total_tokens
FROM {rows}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
