"""A ledger read line by line: listing, following, open calls, verify.

Owns what is on disk and whether it is all there.  Never writes.
"""
