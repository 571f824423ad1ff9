-- What ledger_writer, ledger_reader and everybody (PUBLIC) may do with what the numbered files made, a
-- line for each right; of partitions all but reading.  $1: the tables.

WITH acls AS (
    SELECT 'schema' AS thing, n.nspacl AS acl, false AS part
    FROM pg_catalog.pg_namespace n WHERE n.nspname = 'litellm_ledger'
    UNION ALL
    SELECT c.relname, c.relacl, c.relispartition
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'litellm_ledger'::regnamespace
      AND (c.relname = ANY ($1::text[]) OR c.relispartition)
    UNION ALL
    SELECT c.relname || '.' || a.attname, a.attacl, c.relispartition
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
    WHERE c.relnamespace = 'litellm_ledger'::regnamespace
      AND (c.relname = ANY ($1::text[]) OR c.relispartition)
    UNION ALL
    SELECT p.proname || '()', coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), false
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'litellm_ledger'::regnamespace AND p.proname IN (
        'ask_lease', 'keep_checkpoint', 'make_partition', 'make_partitions', 'make_partitions_ahead',
        'partitions', 'tell_lease'
    )
)
SELECT acls.thing || ': ' || coalesce(r.rolname, 'everybody') || ' may ' || lower(x.privilege_type)
    || CASE WHEN x.is_grantable THEN ' and let others' ELSE '' END AS may
FROM acls
CROSS JOIN LATERAL pg_catalog.aclexplode(acls.acl) AS x
LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
WHERE (x.grantee = 0 OR r.rolname IN ('ledger_writer', 'ledger_reader'))
  AND NOT (acls.part AND x.privilege_type = 'SELECT' AND x.grantee <> 0)
ORDER BY 1
