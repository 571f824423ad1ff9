"""The road from a ledger to a place where many machines meet, and back.

Owns what PostgreSQL and object stores hold of a ledger: their schema, how records get there exactly
once, and how they are read again.  Never changes a ledger, and never holds up a call.
"""
