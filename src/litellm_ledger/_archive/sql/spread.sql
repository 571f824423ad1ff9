-- Quantiles by nearest rank of the calls that succeeded, by group and ({whole} is not 0) over all.

SELECT
    {whole}{names},
    count(latency_ms), quantile_disc(latency_ms, [0.5, 0.9, 0.99]), max(latency_ms),
    count(ttft_ms), quantile_disc(ttft_ms, [0.5, 0.9, 0.99]), max(ttft_ms)
FROM (SELECT latency_ms, ttft_ms{keys} FROM calls WHERE status = 'ok' AND {where})
GROUP BY GROUPING SETS ({sets})
