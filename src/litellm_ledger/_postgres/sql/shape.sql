-- What the schema is, a line for each thing that a shipper or a reader rests on; partitions apart.

SELECT pg_catalog.format('column %s.%s %s%s', c.relname, a.attname,
    pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
    || CASE WHEN a.atthasdef OR a.attidentity <> '' THEN ' default' ELSE '' END) AS thing
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'litellm_ledger'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
UNION ALL
SELECT pg_catalog.format('constraint %s.%s', c.relname, o.conname)
FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace = 'litellm_ledger'::regnamespace AND NOT c.relispartition AND o.contype = 'c'
UNION ALL
SELECT pg_catalog.format('trigger %s.%s %s', c.relname, t.tgname, t.tgenabled)
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'litellm_ledger'::regnamespace AND NOT c.relispartition AND NOT t.tgisinternal
UNION ALL
SELECT pg_catalog.format('function %s %s', p.proname, pg_catalog.md5(p.prosrc))
FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'litellm_ledger'::regnamespace
  -- Shippers do without the others.
  AND p.proname IN ('keep_checkpoint', 'ask_lease', 'tell_lease')
UNION ALL
SELECT pg_catalog.format('key %s (%s)', p.relname, pg_catalog.string_agg(a.attname, ', ' ORDER BY k.at))
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class p ON p.oid = i.indrelid AND NOT p.relispartition AND i.indisunique
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, at)
JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum = k.number
WHERE p.relnamespace = 'litellm_ledger'::regnamespace
GROUP BY i.indexrelid, p.relname
ORDER BY 1
