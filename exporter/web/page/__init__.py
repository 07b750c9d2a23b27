"""The page for people who open the exporter in a browser.

Whole without JavaScript, and with it up to date; it loads nothing. What it shows is in memory, and
it writes no more than `summary.ROWS` rows a table, however many jobs there are.
"""

from exporter.web.page.assets import POLICY
from exporter.web.page.summary import LONGEST_QUERY
from exporter.web.page.view import StatusPage

__all__ = ["LONGEST_QUERY", "POLICY", "StatusPage"]
