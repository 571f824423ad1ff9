"""Compacted segments: Parquet files and the DuckDB connection that reads them.

Owns the columns and the SQL of the archive.  Never removes a segment.
"""
