"""The dashboard: its answers, its pages, and the Starlette application around them.

Owns who may see what (``Viewer``), the JSON under ``/api`` and the pages made of it.  A process of
its own computes both, so that the loop of the application it is mounted in waits for nothing.
Never writes to a ledger, keeps only what can be made anew from it.
"""
