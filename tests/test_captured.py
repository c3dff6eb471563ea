"""A search that is recorded once and replayed: on a CPU by a graph that runs again what it recorded."""

from typing import ClassVar

import numpy as np
import pytest
from harness import assert_same, load, problem
from rows import SHORT
from small import train

from stcore import AWP
from stcore.core.objective import training_step
from stcore.errors import DeviceError, UsageError
from stcore.methods.curriculum import with_curriculum
from stcore.runs.plan import make_plan

torch = pytest.importorskip("torch")

from stcore.backends.torch.captured import CapturedSearch  # noqa: E402


class Again:
    """As a CUDA graph: it reads its inputs where they are, and writes its results where they were."""

    made: ClassVar = []

    def __init__(self, run):
        self.run, self.replays, self.results = run, 0, run()
        self.made.append(self)

    def replay(self):
        self.replays += 1
        for own, new in zip(self.results, self.run(), strict=True):
            own.copy_(new)
        return self.results


@pytest.fixture
def graphs():
    Again.made.clear()
    return Again.made


def learner_of(net="tiny"):
    backend = load("torch")
    return backend, backend.learner(backend.build(net))


def stepped(objective_of, sizes, phases, perturbation=None):
    backend, learner = learner_of()
    objective = objective_of(learner)
    for seed, (size, phase) in enumerate(zip(sizes, phases, strict=True)):
        batch = backend.batch(problem(size, seed=seed))
        noise = batch.noise[: len(objective.noise_laws)]
        training_step(learner, objective, batch.x, batch.y, noise, phase, perturbation)
    return learner.snapshot()


@pytest.mark.parametrize("name", ["st", "gairat", "trades"])
def test_training_is_that_of_the_eager_search_bit_for_bit(graphs, name):
    objective = with_curriculum(SHORT[name], ("1@0.5",), (), 2)
    sizes, phases = (6, 6, 4, 6, 6, 4), (0, 0, 0, 1, 1, 1)
    eager = stepped(lambda learner: objective, sizes, phases, AWP())
    assert_same(stepped(lambda learner: CapturedSearch(objective, learner, Again), sizes, phases, AWP()), eager)
    assert [graph.replays for graph in graphs] == [2, 2]  # one for each phase; the short batches were eager


def test_a_search_that_moves_the_statistics_moves_them_once(graphs):
    """However often it has run to be recorded."""
    sizes = (6, 6, 4)
    eager = stepped(lambda learner: SHORT["n-fgsm"], sizes, (0,) * 3)
    assert_same(stepped(lambda learner: CapturedSearch(SHORT["n-fgsm"], learner, Again), sizes, (0,) * 3), eager)
    assert [graph.replays for graph in graphs] == [2]


def test_a_larger_batch_is_recorded_anew_and_smaller_ones_are_eager(graphs):
    sizes = (4, 6, 4, 6)
    eager = stepped(lambda learner: SHORT["st"], sizes, (0,) * 4)
    assert_same(stepped(lambda learner: CapturedSearch(SHORT["st"], learner, Again), sizes, (0,) * 4), eager)
    assert [graph.replays for graph in graphs] == [1, 2]


def test_what_was_found_stays_when_the_next_is_found(graphs):
    backend, learner = learner_of()
    captured = CapturedSearch(SHORT["st"], learner, Again)
    first, second = (backend.batch(problem(seed=seed)) for seed in (0, 1))
    pair = captured.find(learner, first.x, first.y, first.noise)
    kept = [one.clone() for one in pair]
    captured.find(learner, second.x, second.y, second.noise)
    assert all(map(torch.equal, pair, kept))
    assert type(pair).__name__ == "SqueezePair"


def test_weights_stay_where_they_are_and_if_not_the_search_is_recorded_anew(graphs):
    backend, learner = learner_of()
    captured, batch = CapturedSearch(SHORT["st"], learner, Again), backend.batch(problem())
    given, start = (batch.x, batch.y, batch.noise), learner.snapshot()
    training_step(learner, captured, *given, perturbation=AWP())
    learner.restore(start)
    learner.load_weights(learner.weights())
    learner.blend([value + 1 for value in learner.state()], 0.5)
    training_step(learner, captured, *given)
    assert [graph.replays for graph in graphs] == [2]
    learner.model.double().float().double()  # moves them
    found, expected = (it.find(learner, *given) for it in (captured, SHORT["st"]))
    assert all(map(torch.equal, found, expected))
    assert [graph.replays for graph in graphs] == [2, 1]


def test_a_network_that_draws_in_a_search_is_refused(graphs):
    backend = load("torch")

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(8 * 8 * 3, 3)

        def forward(self, x):
            return self.last((x + torch.rand_like(x)).flatten(1))

    learner = backend.learner(Noisy().double())
    batch = backend.batch(problem())
    with pytest.raises(UsageError, match="cuda_graph: expected a network that draws no random numbers"):
        CapturedSearch(SHORT["st"], learner, Again).find(learner, batch.x, batch.y, batch.noise)


def test_without_cuda_it_is_refused(tmp_path):
    _, learner = learner_of()
    with pytest.raises(DeviceError, match="cuda_graph: expected a CUDA device; received cpu"):
        CapturedSearch(SHORT["st"], learner)
    said = train(tmp_path / "run", "--cuda-graph", backend="torch", device="cpu")
    assert said.code == 4
    assert "cuda_graph: expected a CUDA device" in said.err
    assert not (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ({"backend": "keras"}, "backend = keras"),
        ({"compile": "on"}, "compile = on"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"sync_batch_norm": True}, "sync_batch_norm"),
    ],
)
def test_what_it_cannot_go_with(given, received):
    with pytest.raises(UsageError, match=f"cuda_graph: expected torch.* received {received}"):
        make_plan({"cuda_graph": True, **given})
    assert make_plan({"cuda_graph": True}).runtime.cuda_graph


def test_a_run_takes_it(graphs, tmp_path, monkeypatch):
    from functools import partial

    import stcore.backends.torch as package
    from stcore.base.weights_file import load_weights

    monkeypatch.setattr(package, "CapturedSearch", partial(CapturedSearch, graph=Again))
    runs = []
    for more in ([], ["--cuda-graph"]):
        said = train(tmp_path / f"run{len(more)}", *more, backend="torch", epochs=1, batch_size=24)
        assert said.code == 0, said.err
        runs.append(load_weights(tmp_path / f"run{len(more)}" / "last.safetensors")[0])
    assert_same(*runs)
    assert [graph.replays for graph in graphs] == [2]  # of three batches, the last of 16
    assert np.isfinite(runs[0][next(iter(runs[0]))]).all()
