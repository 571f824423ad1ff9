"""The self-check of `check_litellm()`: every kind of call against a local server.

Owns the cases and the child process that makes them.  Never runs in the user's process.
"""
