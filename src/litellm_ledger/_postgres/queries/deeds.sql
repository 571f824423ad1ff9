-- What was taken away here: when, by which command, why, and what it was.

SELECT at, did, who, coalesce(why, '') AS why, detail::text FROM litellm_ledger.deeds ORDER BY deed_id
