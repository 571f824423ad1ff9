"""Compacted segments: Parquet files and the DuckDB connection that reads them.

Owns the columns, and the SQL queries of every question, of plain segments too.  Never removes a
segment.
"""
