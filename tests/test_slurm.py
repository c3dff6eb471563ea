"""docs/slurm.md: its options exist, and its script asks for the next job where it should, and only there."""

import dataclasses
import platform
import re
import shutil
import subprocess

import pytest
from test_docs import DOCS, blocks

from stcore.cli.options import PlanOptions, SweepOptions

PAGE = DOCS / "slurm.md"
SCRIPT = blocks(PAGE, "sh")[0].text
OURS = {
    f"--{field.name.replace('_', '-')}"
    for options in (PlanOptions, SweepOptions)
    for field in dataclasses.fields(options)
}
SLURMS = {
    "--job-name",
    "--nodes",
    "--ntasks-per-node",
    "--gpus-per-node",
    "--cpus-per-task",
    "--time",
}
SLURMS |= {"--signal", "--requeue", "--open-mode", "--kill-on-bad-exit", "--gpus", "--array"}
TORCHRUNS = {"--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-id", "--rdzv-endpoint"}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")


def test_every_option_it_names_is_somebodys():
    found = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGE.read_text()))
    assert found <= OURS | SLURMS | TORCHRUNS
    assert {"--resume", "--max-hours", "--save-every", "--out"} <= found


def test_torchruns_options_are_its_own():
    pytest.importorskip("torch")
    from torch.distributed.run import get_args_parser

    known = {word for action in get_args_parser()._actions for word in action.option_strings}
    assert known >= TORCHRUNS


@pytest.fixture
def cluster(tmp_path):
    """A machine whose `srun` runs two tasks, and whose `stcli` ends with the code that a file says."""
    tools = {
        "srun": 'shift; for n in 0 1; do SLURM_PROCID=$n SLURM_LOCALID=$n "$@"; code=$?; done; exit $code',
        "stcli": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $MASTER_PORT: $*" >> said; exit "$(cat code)"',
        "scontrol": 'echo "$*" >> asked',
    }
    for name, body in tools.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    (tmp_path / "train.sbatch").write_text(SCRIPT)

    def submit(code, *words):
        """Exit code, what each task's command was, and what was asked of the scheduler."""
        for name in ("said", "asked"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "code").write_text(str(code))
        slurm = {"SLURM_JOB_ID": "71234", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8"}
        path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(["bash", "train.sbatch", *words], cwd=tmp_path, env={"PATH": path, **slurm})
        asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else None
        return done.returncode, (tmp_path / "said").read_text().splitlines(), asked

    return submit


def test_the_first_job_begins_the_run_and_the_next_goes_on(cluster, tmp_path):
    code, said, asked = cluster(130, "--preset", "cifar10", "--dataset", "parquet:a folder")
    assert code == 130
    assert asked == "requeue 71234\n"
    begun = "train --preset cifar10 --dataset parquet:a folder --out runs/slurm-71234 --max-hours 7.9"
    assert said == [f"{rank}/2 {rank} {platform.node()} 31234: {begun}" for rank in (0, 1)]
    (tmp_path / "runs" / "slurm-71234").mkdir(parents=True)
    (tmp_path / "runs" / "slurm-71234" / "config.toml").write_text("")
    code, said, asked = cluster(0, "--preset", "cifar10", "--dataset", "parquet:a folder")
    assert (code, asked) == (0, None)
    assert said[0].endswith(": train --resume runs/slurm-71234 --max-hours 7.9")


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 143])
def test_nothing_else_is_queued_again(cluster, code):
    assert cluster(code)[::2] == (code, None)
