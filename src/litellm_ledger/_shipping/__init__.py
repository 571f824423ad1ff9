"""The road from a ledger to a database where many machines meet.

Owns which lines of a ledger are certain, their rows, how these get there exactly once, and the sums
that are brought forward there.  Never changes a ledger, and never holds up a call.
"""
