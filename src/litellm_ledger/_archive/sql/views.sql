-- What people query: one row a line, under the names of docs/FORMAT.md, and money in dollars beside
-- the picodollars.  {lines} is every line that counts; {columns} names them.

CREATE OR REPLACE VIEW records AS
SELECT
    {columns},
    CAST(cost_picousd AS DECIMAL(19, 0)) * CAST('0.000000000001' AS DECIMAL(12, 12)) AS cost,
    CAST(saved_cost_picousd AS DECIMAL(19, 0)) * CAST('0.000000000001' AS DECIMAL(12, 12)) AS saved_cost
FROM ({lines});

-- Outcomes: what is counted and added up.
CREATE OR REPLACE VIEW calls AS SELECT * FROM records WHERE kind = 'usage';
