-- How _csv_lines writes values.  most is how many characters a text has at most, mark stands
-- at the end of a longer one; formulas are the signs that get an apostrophe, quoted is the
-- pattern of what needs quotes.

CREATE OR REPLACE TEMP MACRO csv_cut(x) AS
    CASE WHEN length(x) > {most} THEN left(x, {most} - length({mark})) || {mark} ELSE x END;

CREATE OR REPLACE TEMP MACRO csv_defused(x) AS
    CASE WHEN list_contains({formulas}, left(x, 1)) THEN '''' || x ELSE x END;

CREATE OR REPLACE TEMP MACRO csv_quoted(x) AS
    CASE WHEN regexp_matches(x, {quoted}) THEN '"' || replace(x, '"', '""') || '"' ELSE x END;

CREATE OR REPLACE TEMP MACRO csv_text(x) AS
    coalesce(csv_quoted(csv_defused(csv_cut(x))), '');

CREATE OR REPLACE TEMP MACRO csv_time(x) AS
    CASE
        WHEN x IS NULL THEN ''
        WHEN epoch_us(x) % 1000000 = 0 THEN strftime(x, '%Y-%m-%dT%H:%M:%SZ')
        ELSE strftime(x, '%Y-%m-%dT%H:%M:%S.%fZ')
    END;

CREATE OR REPLACE TEMP MACRO csv_money(x) AS
    coalesce(rtrim(rtrim(CAST(x AS VARCHAR), '0'), '.'), '');
