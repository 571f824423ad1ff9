"""The HTML page: figures, charts and text of one report.

Owns one self-contained page.  Never fetches anything when it is opened.
"""
