"""The process around the ledger: event loop, threads, signals, exit and fork.

Owns what tasks, threads and signal handlers of this library share.  Never knows what a record is.
"""
