"""gunicorn app:app, in this directory: two workers of uvicorn's.

No time limit for open streams is needed: those of the service end by themselves ten seconds after
SIGTERM, and are on record.
"""

bind = "127.0.0.1:8000"
workers = 2
worker_class = "uvicorn_worker.UvicornWorker"
graceful_timeout = 30
