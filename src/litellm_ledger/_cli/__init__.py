"""The command line.

Owns flags, tables and exit statuses.  Never holds figures that Python cannot get in another way.
"""
