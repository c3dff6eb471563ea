"""`stcli sweep --cluster`: runs as jobs, by submitit's executor of this machine."""

import contextlib
import re
import sys
import types

import pytest
from small import SETTINGS, stcli, words

submitit = pytest.importorskip("submitit")

from stcore import errors  # noqa: E402
from stcore.base.files import read_json  # noqa: E402
from stcore.cli import cluster  # noqa: E402
from stcore.cli.children import Ended  # noqa: E402
from stcore.errors import UsageError  # noqa: E402


def sweep(out, *args, **settings):
    return stcli("sweep", *words({**SETTINGS, "threads": 1, "attacks": "fgsm", "out": out, **settings}), *args)


def test_parameters_are_words_and_numbers():
    given = cluster.parameters(["timeout_min=480", "slurm_partition=gpu", "slurm_constraint=a=b", "nice=-5"])
    assert given == {"timeout_min": 480, "slurm_partition": "gpu", "slurm_constraint": "a=b", "nice": -5}
    for word in ("timeout_min", "=3", "a="):
        with pytest.raises(UsageError, match="expected NAME=VALUE"):
            cluster.parameters([word])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cluster", "pbs"], "cluster: expected one of slurm, local; received 'pbs'"),
        (["--cluster-option", "timeout_min=3"], "expected --cluster with it"),
        (["--cluster", "local", "--devices", "cpu,cpu"], "cluster: expected no --devices with it"),
        (["--cluster", "local", "--max-hours", "1"], "cluster: expected no --max-hours with it"),
        (["--cluster", "local", "--cluster-option", "gpu_per_node=1"], "expected submitit's parameters"),
        (["--cluster", "slurm"], "cluster: expected slurm on this machine"),
        (["--cluster", "local", "--optimize", "pgd20"], "optimize: expected no --cluster with it"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, args, said):
    answer = sweep(tmp_path, "--vary", "beta=1,2", *args)
    assert answer.code == UsageError.exit_code
    assert said in answer.err


class Job:
    """A job of a queue that ends when it is looked at for the `looks`-th time."""

    def __init__(self, training, number, looks=2):
        self.training, self.job_id, self.looks = training, str(number), looks

    def done(self):
        self.looks -= 1
        return self.looks < 0

    def result(self):
        return Ended(errors.OK, ())


@pytest.fixture
def queue(monkeypatch, tmp_path):
    """submitit with a queue in this process, which is there for all commands."""
    jobs = {}

    class Executor:
        folder = tmp_path
        _executor = types.SimpleNamespace(job_class=lambda folder, job_id, tasks: jobs[job_id])

        def __init__(self, folder, cluster):
            assert cluster == "slurm"

        def update_parameters(self, **given):
            self.given = given

        def batch(self):
            return contextlib.nullcontext()

        def submit(self, training):
            job = Job(training, len(jobs) + 1)
            jobs[job.job_id] = job
            return job

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    monkeypatch.setitem(cluster.POLL, "slurm", 0.0)
    return jobs


def test_each_run_is_a_job_and_is_followed_again(tmp_path, queue, monkeypatch):
    """Ctrl-C leaves the queue alone; the same command submits nothing twice."""
    out = tmp_path / "sweep"

    def pressed(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(cluster.time, "sleep", pressed)
        said = sweep(out, "--vary", "beta=1,2", "--seeds", "1..3", "--cluster", "slurm")
    assert said.code == errors.INTERRUPTED
    assert "jobs 1, 2, 3, 4, 5, 6 stay in the queue" in said.out
    known = read_json(out / cluster.FOLDER / cluster.JOBS)
    assert [known[str(out / f"beta={beta}" / "seed2")] for beta in (1, 2)] == ["2", "5"]
    assert [job.training.job.folder.name for job in queue.values()] == [f"seed{n}" for n in (1, 2, 3)] * 2
    again = sweep(out, "--vary", "beta=1,2", "--seeds", "1..3", "--cluster", "slurm")
    assert len(queue) == 6
    assert len(re.findall(r"job \d, submitted before", again.out)) == 6
    assert len(re.findall(r"job \d ended with exit code 0", again.out)) == 6
    sweep(out, "--vary", "beta=1,2", "--seeds", "1..3", "--cluster", "slurm")  # their jobs are over, the runs not
    assert len(queue) == 12


@pytest.mark.slow  # half a minute: six runs, each in two processes of its own
def test_a_sweep_of_six_on_the_local_executor(tmp_path):
    """Each finishes, the table is printed; a job that is asked to stop leaves a run that the next resumes."""
    said = sweep(tmp_path, "--vary", "beta=1,2,3", "--vary", "steps=1,2", "--cluster", "local")
    assert said.code == 0, said.err + said.out
    assert len(list(tmp_path.glob("*/result.json"))) == 6
    assert "| steps | beta |" in said.out
    assert len(list((tmp_path / cluster.FOLDER).glob("*/*_log.out"))) == 6
    assert "finished before" in sweep(tmp_path, "--vary", "beta=1,2,3", "--vary", "steps=1,2").out
