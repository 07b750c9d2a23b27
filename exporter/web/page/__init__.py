"""The status page, for people who open the exporter in a browser.

Complete without JavaScript, which only keeps it up to date; it loads no other resources. Everything
shown is in memory, and a table has at most `summary.ROWS` rows, however many jobs there are.
"""

from exporter.web.page.assets import POLICY
from exporter.web.page.summary import MAX_QUERY
from exporter.web.page.view import StatusPage

__all__ = ["MAX_QUERY", "POLICY", "StatusPage"]
