"""The response cache: keys, entries, single flight, replay.

Owns answers that need no request.  Never makes a request by itself.
"""
