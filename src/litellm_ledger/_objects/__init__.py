"""A ledger in object storage: sealed files under a prefix, and a mirror of them to read from.

Owns the names of objects, how files are sent and fetched, and the proof that they are there.
Never replaces an object, except by what is left of it when records were erased.
"""
