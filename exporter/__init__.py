"""Prometheus exporter for training jobs on Huawei Cloud ModelArts."""

__version__ = "0.1.0"

_COMMIT = "$Format:%H$"  # replaced in the archives that releases are built from, see .gitattributes
__revision__ = "unknown" if _COMMIT.startswith("$") else _COMMIT
