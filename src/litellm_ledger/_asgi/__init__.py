"""What an ASGI server's requests need of the ledger: tags, totals, streams that end, health.

Owns the middleware, the streaming answers and the health endpoint, in plain ASGI.  Never imports a
framework, never takes a signal from a server, never changes what an application answers unless
asked to.
"""
