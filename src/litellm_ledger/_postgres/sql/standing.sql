-- What a database is: who may do what, which months have a partition, what the roles should not
-- be able to do and can.  $1: months that should be there ahead.

WITH months AS (
    SELECT partitions AS month FROM litellm_ledger.partitions()
), wanted AS (
    SELECT to_char((now() AT TIME ZONE 'UTC')::date + make_interval(months => n), 'YYYYMM')::int AS month
    FROM generate_series(0, $1::int) AS n
), wrongs AS (
    SELECT c.relname::text AS name, r.rolname || ' may ' || lower(p.privilege) AS wrong
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'litellm_ledger'
    CROSS JOIN pg_catalog.pg_roles r
    CROSS JOIN (VALUES ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE')) AS p (privilege)
    WHERE r.rolname IN ('ledger_writer', 'ledger_reader')
      AND c.relkind IN ('r', 'p')
      AND (c.relname LIKE 'calls%'
           OR c.relname IN ('writers', 'batches', 'beaten', 'rejected', 'gaps', 'additions', 'deeds',
                            'schema_version'))
      AND NOT (r.rolname = 'ledger_writer' AND p.privilege = 'INSERT'
               AND c.relname IN ('calls', 'batches', 'beaten', 'rejected', 'gaps', 'additions'))
      AND pg_catalog.has_table_privilege(r.oid, c.oid, p.privilege)
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
    (SELECT coalesce(sum(usage), 0)::bigint FROM litellm_ledger.writers) AS records,
    ARRAY(SELECT name FROM wrongs ORDER BY name, wrong) AS tables,
    ARRAY(SELECT wrong FROM wrongs ORDER BY name, wrong) AS wrongs
FROM pg_catalog.pg_class c
WHERE c.oid = 'litellm_ledger.calls'::regclass
