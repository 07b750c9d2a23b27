"""Options from flags, environment and a file: every one of them once, in `tree`."""

from exporter.settings.kinds import Address
from exporter.settings.loading import load
from exporter.settings.options import Option, groups, help_text, options
from exporter.settings.tree import AuthSettings, Method, Settings, TargetSettings
from exporter.settings.webfile import WebFile

__all__ = [
    "Address",
    "AuthSettings",
    "Method",
    "Option",
    "Settings",
    "TargetSettings",
    "WebFile",
    "groups",
    "help_text",
    "load",
    "options",
]
