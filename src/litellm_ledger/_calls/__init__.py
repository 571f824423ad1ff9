"""One call: attempts, retries, streams, their endings, and the calls of other code.

Owns what happens between the caller's arguments and the outcome on record.
Never touches the disk.
"""
