"""Prices: what a call costs by an entry of the price map, exact and term by term.

Owns the computation: quantities and conditions read from a record, an entry read as decimals, and
the terms whose sum is the cost.  Never imports LiteLLM, looks at a clock or reads a file.
"""
