-- Latencies and times to first token of the calls that succeeded, by group and bucket: for each set of
-- columns the bucket, how many, the smallest and the largest; the flag says whether the second set counts.

SELECT
    {names}grouping(latency),
    latency, count(*), min(latency_ms), max(latency_ms),
    ttft, count(*), min(ttft_ms), max(ttft_ms)
FROM (
    SELECT latency_ms, {latency_ms_bucket} AS latency, ttft_ms, {ttft_ms_bucket} AS ttft{keys}
    FROM calls
    WHERE status = 'ok' AND {where}
)
GROUP BY GROUPING SETS (({names}latency), ({names}ttft))
