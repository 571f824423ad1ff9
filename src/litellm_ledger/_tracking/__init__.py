"""`UsageTracker`: records in, totals in memory, tags from the context.

Owns what a caller wants beside the writing.  Never knows of LiteLLM.
"""
