"""A database that many ledgers are shipped to, as one ledger.

Owns how it is read, summed up and verified, and how months and persons are taken out of it again.
Never ships anything, and never changes a ledger.
"""
