"""Outcomes as OpenTelemetry metrics and span attributes.

Owns the names that the conventions for generative AI give to what a record says, and the
instruments.  Never changes a record, never holds a call up, never imports the OpenTelemetry SDK.
"""
