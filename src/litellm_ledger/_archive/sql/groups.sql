-- One row a group: its {keys}, and the {figures} of Totals.  {sums} are by status and who counted;
-- {rules} are the factors that make figures of them.

CREATE OR REPLACE TABLE groups AS
SELECT {keys}{figures}
FROM ({sums}) AS sums JOIN {rules} ON
    sums.status IS NOT DISTINCT FROM rules.status
    AND sums.usage_source IS NOT DISTINCT FROM rules.usage_source
GROUP BY ALL
