"""Everything that knows LiteLLM: its import, its answers, its hooks, its prices, its connections.

Owns the one place that changes when LiteLLM does.  Never writes a record.
"""
