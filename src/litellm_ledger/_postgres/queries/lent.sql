-- What is lent of budgets that machines share, and used as the processes said last, where a window
-- still counts; a rolling one has several keys.

SELECT s.budget, s.scope, s.unit, s.counts, sum(w.lent) AS lent, sum(w.used) AS used,
    max(w.leaves) AS until,
    (SELECT count(DISTINCT l.holder) FROM litellm_ledger.leases l
     WHERE l.counts = s.counts AND l.scope = s.scope AND l.key = ANY(array_agg(w.key))
       AND l.granted > l.returned) AS holders
FROM litellm_ledger.budget_scopes s
JOIN litellm_ledger.budget_windows w ON w.counts = s.counts AND w.scope = s.scope
WHERE w.leaves > pg_catalog.now()
GROUP BY s.budget, s.scope, s.unit, s.counts
ORDER BY s.budget, s.scope, s.counts
