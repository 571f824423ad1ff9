"""`LiteLLMClient`: names, signatures and docstrings of the public client.

Owns the public surface of calls.  Never holds logic of its own.
"""
