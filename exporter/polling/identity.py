"""The identity of a target: where it is, and the names of its series, log lines and saved state."""

from dataclasses import dataclass

from exporter.storage.scopes import StateKey

_UNKNOWN_PROJECT = "unknown"
"""Label ``project`` of a target without a name whose project ID has not been looked up yet."""


@dataclass(frozen=True)
class TargetIdentity:
    """Where a target is, and what it is called.

    Attributes:
        name: value of the label ``project``; None = the project ID.
        region: value of the label ``region``.
        project_id: None = to be looked up from the region.
        endpoint: base URL of ModelArts.
        iam_endpoint: base URL of IAM.
        workspaces: workspace IDs.
    """

    name: str | None
    region: str
    project_id: str | None
    endpoint: str
    iam_endpoint: str
    workspaces: tuple[str, ...]

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all series of the target."""
        project = self.name or self.project_id or _UNKNOWN_PROJECT
        return {"region": self.region, "project": project}

    @property
    def display_name(self) -> str:
        """The name in log lines and tables."""
        return "/".join(self.labels.values())

    @property
    def has_label(self) -> bool:
        """Whether the label ``project`` is final."""
        return bool(self.name or self.project_id)

    @property
    def key(self) -> StateKey:
        """The name of the target's saved state."""
        project = self.project_id or _UNKNOWN_PROJECT
        return StateKey(self.region, project, self.labels["project"], self.endpoint)
