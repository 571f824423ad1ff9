"""The writer: queue, one task, batches, acknowledgements, the last resort.

Owns the path of an accepted record to the disk.  Never reads a ledger or knows of calls.
"""
