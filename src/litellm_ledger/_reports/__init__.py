"""Answers about a ledger: `Ledger`, reports, SQL, doctor.

Owns the choice between Python and DuckDB, and the same answer from both.
Never writes to a ledger.
"""
