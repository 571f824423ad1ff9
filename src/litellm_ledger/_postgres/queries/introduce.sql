-- Writers that nothing of was shipped yet; another shipper may do the same.  $1: their names, $2: the host.

INSERT INTO litellm_ledger.writers (writer, host)
SELECT name, $2 FROM unnest($1::text[]) AS name
ON CONFLICT (writer) DO NOTHING
