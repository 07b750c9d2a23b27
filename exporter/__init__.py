"""Prometheus exporter for training jobs on Huawei Cloud ModelArts."""

__version__ = "0.1.0"
