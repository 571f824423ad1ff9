"""What changes files after their writer: recovery, salvage, compaction.

Owns finishing what dead writers left, and joining sealed segments.  Never runs on an event loop.
"""
