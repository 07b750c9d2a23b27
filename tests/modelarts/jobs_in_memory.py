"""The known jobs of a fleet, without a store."""

from jobs.examples import jobs_in


class JobsInMemory:
    """As `exporter.modelarts.known_jobs.KnownJobs`, of a fleet that keeps every job whole."""

    def __init__(self, fleet):
        self._jobs = jobs_in(fleet)

    async def find(self, jobs):
        return {job.id: self._jobs[job.id] for job in jobs if job.id in self._jobs}

    async def unchanged(self, jobs):
        return {job_id for job_id, known in (await self.find(jobs)).items() if known.job in jobs}

    async def omitted(self, workspace, was_read):
        return {
            job_id: known
            for job_id, known in self._jobs.items()
            if known.job.workspace == workspace and not was_read(job_id)
        }
