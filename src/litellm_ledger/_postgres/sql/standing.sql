-- What a database is: what the user may do, which months have a partition.  $1: months that should
-- be there ahead.

WITH months AS (
    SELECT partitions AS month FROM litellm_ledger.partitions()
), wanted AS (
    SELECT to_char((now() AT TIME ZONE 'UTC')::date + make_interval(months => n), 'YYYYMM')::int AS month
    FROM generate_series(0, $1::int) AS n
)
SELECT
    pg_catalog.has_table_privilege('litellm_ledger.calls', 'INSERT')
        AND pg_catalog.has_column_privilege('litellm_ledger.writers', 'shipped', 'UPDATE') AS ships,
    pg_catalog.has_table_privilege('litellm_ledger.calls', 'SELECT') AS reads,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns,
    ARRAY(SELECT month FROM months ORDER BY 1) AS months,
    ARRAY(SELECT month FROM wanted EXCEPT SELECT month FROM months ORDER BY 1) AS missing,
    (SELECT count(*) FROM litellm_ledger.calls WHERE month = 0) AS outside,
    (SELECT count(*) FROM litellm_ledger.writers) AS writers,
    (SELECT coalesce(sum(usage), 0)::bigint FROM litellm_ledger.writers) AS records
FROM pg_catalog.pg_class c
WHERE c.oid = 'litellm_ledger.calls'::regclass
