"""Sums over records: groups, totals, periods, quantiles, and how figures are written.

Owns the arithmetic of every report.  Never reads a ledger.
"""
