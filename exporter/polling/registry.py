"""The targets of a process: no two have the same labels, or continue the same saved state."""

from collections.abc import Sequence
from typing import Protocol

from exporter.polling.identity import TargetIdentity
from exporter.storage.scopes import UNKNOWN, StateKey


class RegisteredTarget(Protocol):
    """What must be known about a target: see `exporter.polling.target.Target`."""

    identity: TargetIdentity
    state_key: StateKey | None


class TargetRegistry:
    """Answers questions about the other targets of a process.

    Attributes:
        targets: all that are polled.
    """

    def __init__(self, targets: Sequence[RegisteredTarget] = ()) -> None:
        self.targets = targets

    def has_labels(self, identity: TargetIdentity, *, other_than: RegisteredTarget) -> bool:
        """Whether another target has the labels of an identity."""
        return any(
            each.identity.has_label and each.identity.labels == identity.labels
            for each in self.targets
            if each is not other_than
        )

    def uses(self, key: StateKey, workspace: str, *, other_than: RegisteredTarget) -> bool:
        """Whether saved state belongs to another target, or may turn out to.

        State of unknown name and endpoint belongs to all targets of its project.
        """
        for each in self.targets:
            if each is other_than or workspace not in each.identity.workspaces:
                continue
            if each.state_key == key or _may_be(each.identity, key):
                return True
        return False


def _may_be(identity: TargetIdentity, key: StateKey) -> bool:
    """Whether the state of an identity has this key, as far as its project is known yet."""
    if key.name == UNKNOWN:
        return (identity.region, identity.project_id) == (key.region, key.project_id)
    ours = identity.key
    if identity.project_id is None:
        ours = ours._replace(project_id=key.project_id, name=identity.name or key.project_id)
    return ours == key
