"""Verifies the lists of all workspaces of a target, and resolves what they omit."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from exporter.jobs.fleet import Fleet
from exporter.jobs.job import Job
from exporter.modelarts.missing import SupportedFilters, look_up_missing
from exporter.modelarts.verification.known_list import KnownList
from exporter.modelarts.verification.marks import Verification
from exporter.modelarts.verification.verifier import Findings, Verifier
from exporter.modelarts.workspace import JobSource, WorkspaceReader


class Round(NamedTuple):
    """A round of verification of one workspace: what it has read, and what it has found."""

    reader: WorkspaceReader
    findings: Findings


class ListVerifiers:
    """The verifiers of a target.

    Args:
        source: where to read from.
        interval: seconds in which every page should be verified once (``poll.sweep_interval``).

    Attributes:
        unverifiable: by workspace whose list cannot be verified, the reason, for people.
    """

    def __init__(self, source: JobSource, interval: float) -> None:
        self.unverifiable: dict[str, str] = {}
        self._source = source
        self._verifiers = {
            workspace: Verifier(interval=interval, clock=source.clock)
            for workspace in source.workspaces
        }
        self._omitted: dict[str, frozenset[str]] = {}

    def swept(self) -> None:
        """Take note that all lists were read as a whole."""
        self.unverifiable = {}
        for verifier in self._verifiers.values():
            verifier.swept()

    async def verify(
        self,
        workspace: str,
        fleet: Fleet,
        known: KnownList,
        supported: SupportedFilters,
        *,
        totals: Mapping[str, int | None],
        suspects: Collection[Job],
        deadline: float,
    ) -> Round:
        """Do a round of verification of one workspace.

        Args:
            workspace: its id.
            fleet: everything known.
            known: the known jobs of the workspace.
            supported: the lookups that the service supports.
            totals: the numbers of jobs as reported by the service, by field name.
            suspects: jobs that no lookup has found; the list is read where they should be.
            deadline: monotonic seconds.

        Raises:
            PollError: a page could not be read.
        """
        reader = WorkspaceReader(
            self._source,
            workspace,
            deadline=deadline,
            background=True,
            unified=workspace in fleet.unified,
        )
        findings = await self._verifiers[workspace].verify(
            reader,
            known,
            Verification.decode(fleet.verification.get(workspace, b"")),
            totals=totals,
            suspects=[job.created for job in suspects if job.created is not None],
        )
        if findings.verdict == "unverifiable":
            self.unverifiable[workspace] = findings.reason
        else:
            self.unverifiable.pop(workspace, None)
        await self._resolve(
            reader, [known.job for known in findings.missing.values()], fleet, supported
        )
        return Round(reader, findings)

    async def _resolve(
        self,
        reader: WorkspaceReader,
        missing: Iterable[Job],
        fleet: Fleet,
        supported: SupportedFilters,
    ) -> None:
        """Find out whether jobs that the list omits are deleted.

        If no lookup can tell, they are once they were omitted twice.
        """
        workspace = reader.workspace
        jobs = [job for job in missing if job.id not in reader.jobs]
        witness = next(iter(reader.jobs.values()), None)
        unresolved = await look_up_missing(reader, jobs, supported, witness=witness)
        ids = {job.id for job in unresolved}
        if workspace in fleet.unified and not reader.unified:
            ids |= reader.deleted  # a lookup did not ask for fine-tuning jobs
            reader.deleted.clear()
        elif not reader.undecodable:
            reader.deleted |= ids & self._omitted.get(workspace, frozenset())
        reader.unresolved |= ids - reader.deleted
        self._omitted[workspace] = frozenset(reader.unresolved)
