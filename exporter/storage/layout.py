"""The format of the state file."""

from exporter.storage import migrations
from exporter.storage.check import check
from exporter.storage.sqlite import Layout

LAYOUT = Layout(
    application_id=0x4D416578,  # "MAex"
    steps={
        1: migrations.create_first,
        2: migrations.to_scopes,
        3: migrations.to_groups,
    },
    check=check,
)
