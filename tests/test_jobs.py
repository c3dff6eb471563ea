"""Queue of runs: which is next."""

import pytest

from stcore.cli import jobs
from stcore.cli.children import Ended
from stcore.runs.plan import make_plan


class Told:
    """In place of the child processes: notes who would start."""

    def __init__(self, say):
        self.begun = say

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, mark, command, heed):
        self.begun(mark)
        return Ended(0, ())


@pytest.fixture
def three(tmp_path):
    """Three runs; the first was begun on the CPU, the second on no device yet, the third on cuda:1."""
    runs = [jobs.Job(name, tmp_path / name, (), make_plan({}), {}) for name in ("a", "b", "c")]
    for run, device in zip(runs, ("cpu", None, "cuda:1"), strict=True):
        if device is not None:
            run.folder.mkdir()
            (run.folder / "config.toml").write_text(f'device = "{device}"\n')
    return runs


@pytest.mark.parametrize(
    ("device", "order"), [(None, "abc"), ("cpu", "abc"), ("cuda:0", "bac"), ("cuda:1", "bca")]
)
def test_without_devices_the_order_is_as_listed_and_with_them_ones_own_runs_come_first(
    three, monkeypatch, device, order
):
    monkeypatch.setattr(jobs, "Children", Told)
    begun = []
    jobs.train(three, [device], begun.append)
    assert begun == [f"[{name}]" for name in order]
