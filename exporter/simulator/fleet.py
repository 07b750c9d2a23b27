"""The world under manual control: the transitions of jobs.

The default for the ``at`` of a transition is the world's own `World.now`. Tests may give times out
of order or in the future: the service may do that, too.
"""

from exporter.simulator.job import (
    FIRST,
    IN_PLACE,
    RESCHEDULING,
    RESTARTED,
    SECONDARY,
    Job,
    Recovery,
    Run,
)
from exporter.simulator.world import World

_STARTUP_SECONDS = 5.0
_REASONS = {"Completed": "job completed", "Terminated": "job terminated", "Abnormal": "job lost"}


class Fleet(World):
    """Jobs of one project that change on request only."""

    def queue(self, job: Job | str, at: float | None = None) -> None:
        """Creating → Pending."""
        self.enter(job, "Pending", at, kind="queued")

    def enter(
        self,
        job: Job | str,
        phase: str,
        at: float | None = None,
        *,
        secondary: str | None = None,
        kind: str = "entered",
    ) -> None:
        """Enter any phase, documented or not, and change nothing else."""
        job = self._job(job)
        job.phase = phase
        job.secondary = secondary or SECONDARY.get(phase, phase)
        self.index.phase_changed(job)
        self._record(job, self._when(at), kind)

    def start(
        self,
        job: Job | str,
        at: float | None = None,
        *,
        restarted: bool = False,
        startup: float | None = _STARTUP_SECONDS,
    ) -> None:
        """Begin a run; the first one is the job's start.

        Args:
            job: the job or its id.
            at: time.
            restarted: in existing containers.
            startup: seconds until its cards compute; None: `compute` will tell.
        """
        job, when = self._job(job), self._when(at)
        before = job.runs[-1].recovery or "unknown" if job.runs else ""
        recovery = job.open_recovery
        start_type = RESTARTED if restarted else FIRST
        job.runs.append(Run(when, start_type))
        job.phase = job.secondary = "Running"
        self._set_nodes(job, job.nodes, when)
        self.index.phase_changed(job)
        if job.started is None:
            job.started = when
            self._record(job, when, "started")
        if recovery is not None:
            self._settle(job, recovery, "success", when)
        if before:
            self._record(job, when, "restarted", start_type=start_type, recovery=before)
        if startup is not None:
            self._compute(job, when + startup, when)

    def compute(self, job: Job | str, at: float | None = None) -> None:
        """The cards of the current run begin to compute; a job without cards does not change."""
        when = self._when(at)
        self._compute(self._job(job), when, when)

    def resize(self, job: Job | str, nodes: int, at: float | None = None) -> None:
        """Change the number of nodes in use, as when a job loses one and goes on without it."""
        job, when = self._job(job), self._when(at)
        self._set_nodes(job, nodes, when)
        self._record(job, when, "resized", nodes_up=nodes)

    def interrupt(
        self,
        job: Job | str,
        policy: str,
        at: float | None = None,
        *,
        downgraded_from: str = "",
        phase: str | None = None,
        reason: str = "exit with 1",
        task: str = "worker-0",
        scenario: str = "job_failed",
    ) -> None:
        """End the run and begin a recovery; `start` ends the recovery.

        Args:
            job: the job or its id.
            policy: ``end_recover``.
            at: time.
            downgraded_from: ``end_recover_before_downgrade``.
            phase: until the next run; None: Running, and Pending where all pods are rebuilt.
            reason: ``end_reason``.
            task: ``end_related_task``.
            scenario: ``fault_scenario`` of the newer record.
        """
        job, when = self._job(job), self._when(at)
        run = job.runs[-1]
        run.end, run.reason, run.task = when, reason, task
        run.recovery, run.recovery_before = policy, downgraded_from
        tried = [name for name in (downgraded_from, policy) if name]
        run.recoveries = [Recovery(name, scenario, reason, task, when) for name in tried]
        rebuilt = policy in RESCHEDULING[1:]
        if policy not in IN_PLACE:
            self._set_nodes(job, 0 if rebuilt else job.nodes - 1, when)
        job.phase = phase or ("Pending" if rebuilt else "Running")
        job.secondary = SECONDARY.get(job.phase, job.phase)
        self._record(job, when, "interrupted", recovery=policy)
        for given_up in run.recoveries[:-1]:
            self._settle(job, given_up, "downgrade", when)
        if downgraded_from and downgraded_from != policy:
            self._record(job, when, "downgraded", from_recovery=downgraded_from, to_recovery=policy)

    def recover(
        self,
        job: Job | str,
        policy: str,
        at: float | None = None,
        *,
        gap: float = 0.0,
        downgraded_from: str = "",
        restarted: bool | None = None,
    ) -> None:
        """Call `interrupt`, and `start` after ``gap`` seconds.

        ``restarted`` None: depends on the policy, in place or rescheduled.
        """
        when = self._when(at)
        self.interrupt(job, policy, when, downgraded_from=downgraded_from)
        in_place = policy in IN_PLACE if restarted is None else restarted
        self.start(job, when + gap, restarted=in_place)

    def stop(self, job: Job | str, at: float | None = None) -> None:
        """Stop the job as a user: Terminating; `finish` with Terminated ends that."""
        self.enter(job, "Terminating", at, kind="stopping")

    def finish(
        self,
        job: Job | str,
        phase: str = "Completed",
        exit_code: int | None = None,
        at: float | None = None,
        *,
        secondary: str | None = None,
        task: str = "",
        message: str = "",
        reason: str | None = None,
        coded: bool = True,
        refused: str = "",
        scenario: str = "job_failed",
    ) -> None:
        """End the job, and its recovery if there is one under way.

        Args:
            job: the job or its id.
            phase: one of `job.TERMINAL`.
            exit_code: of the failed task; None: 1 for Failed, else no task failed.
            at: time.
            secondary: None: the usual one, CreateFailed for Abnormal jobs that never ran.
            task: the failed task; default the first worker.
            message: of the failed task.
            reason: ``end_reason`` of the last run; default a usual one.
            coded: whether the failed task has an exit code, not only a message.
            refused: a recovery for which the budget of restarts does not suffice.
            scenario: ``fault_scenario`` of the refused recovery.
        """
        job, when = self._job(job), self._when(at)
        recovery = job.open_recovery
        if exit_code is None and phase == "Failed" and coded:
            exit_code = 1
        job.phase, job.exit_code, job.ended = phase, exit_code, when
        self._set_nodes(job, 0, when)
        unstarted = "CreateFailed" if phase == "Abnormal" and job.started is None else phase
        job.secondary = secondary or SECONDARY.get(unstarted, unstarted)
        if exit_code or not coded:
            job.failed_task = task or job.workers()[0]
            job.message = message or (f"exit with {exit_code}" if coded else "image pull failed")
        if job.runs and job.runs[-1].end is None:
            run = job.runs[-1]
            usual = (
                f"exit with {exit_code}" if exit_code else job.message or _REASONS.get(phase, "")
            )
            run.end, run.task = when, job.failed_task
            run.reason = usual if reason is None else reason
            if refused:
                recovery = Recovery(refused, scenario, run.reason, run.task, when)
                run.recoveries.append(recovery)
        self.index.phase_changed(job)
        self._record(job, when, "finished", exit_code=exit_code)
        if recovery is not None:
            result = "terminated" if phase == "Terminated" else "failed"
            self._settle(job, recovery, "quotaExceeded" if refused else result, when)

    def reactivate(self, job: Job | str, at: float | None = None) -> None:
        """Run a finished job again, as after a hidden restart."""
        job, when = self._job(job), self._when(at)
        job.ended = job.exit_code = None
        job.failed_task = job.message = ""
        job.phase = "Running"
        self._record(job, when, "reactivated")
        self.start(job, when)

    def _compute(self, job: Job, begins: float, recorded: float) -> None:
        run = job.runs[-1]
        if job.cards and run.computing is None:
            run.computing = begins
            self._record(job, recorded, "computing", startup=int(begins) - int(run.start))

    def _settle(self, job: Job, recovery: Recovery, result: str, when: float) -> None:
        recovery.end, recovery.result = when, result
        self._record(
            job,
            when,
            "fault",
            recovery=recovery.policy,
            fault_scenario=recovery.scenario,
            result=result,
        )

    def _set_nodes(self, job: Job, nodes: int, when: float) -> None:
        if nodes != job.nodes_up:
            job.nodes_up = nodes
            job.node_changes.append((when, nodes))
