"""PostgreSQL: how a database is reached, what its schema is, and what is asked of it.

Owns addresses, connections and their protection, migrations, and every statement in a file.
Never knows a ledger: what the rows mean is told by the rooms that use it.
"""
