"""The record: its fields, its line of JSON, its money.

Owns bytes and values of one record: fields, checksums, numbers, prices and picodollars.
Never touches a file, a clock or an event loop.
"""
