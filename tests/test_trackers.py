"""`--track`: wandb, trackio and mlflow each hold what the run holds, as their own readers say.

Each runs in a process of its own with its files in a local folder, as a user's does.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from small import SETTINGS, words

from stcore.errors import UsageError
from stcore.testing import check_tracker
from stcore.trackers import logged, make_tracker

RUN = {**SETTINGS, "epochs": 2, "method": "n-fgsm", "attacks": "fgsm"}

WANDB = """
import glob, json, struct
from wandb.proto.wandb_internal_pb2 import Record

def records(path, block=32768):
    # LevelDB's log format after seven bytes: blocks of records (checksum, length, kind), some in several pieces
    content, at, pieces = open(path, "rb").read(), 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(pieces)
            pieces = b""

found = {"config": {}, "history": [], "summary": {}, "table": None}
for path in sorted(glob.glob("wandb/offline-run-*/*.wandb")):
    for record in records(path):
        if record.HasField("run"):
            found["config"] |= {it.key: json.loads(it.value_json) for it in record.run.config.update}
        if record.HasField("history"):
            found["history"].append(
                {it.key or "/".join(it.nested_key): json.loads(it.value_json) for it in record.history.item}
            )
        if record.HasField("summary"):
            found["summary"] |= {it.key: json.loads(it.value_json) for it in record.summary.update}
for path in glob.glob("wandb/offline-run-*/files/media/table/*.json"):
    found["table"] = json.load(open(path))["data"]
rows = [{k: v for k, v in row.items() if not k.startswith("_")} for row in found["history"] if "loss" in row]
print(json.dumps({**found, "history": rows}))
"""
TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("stcore")
logs = SQLiteStorage.get_logs("stcore", name)
config = SQLiteStorage.get_run_config("stcore", name)
last = next(log for log in logs if "accuracies" in log)
summary = {key: value for key, value in last.items() if "/" in key}
table = [list(row.values()) if isinstance(row, dict) else row for row in last["accuracies"]["_value"]]
rows = [{k: v for k, v in log.items() if k not in ("timestamp", "step")} for log in logs if "epoch" in log]
print(json.dumps({"number": name, "config": config, "history": rows, "summary": summary, "table": table}))
"""
MLFLOW = """
import collections, json
from mlflow import MlflowClient
client = MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("stcore").experiment_id])
rows = collections.defaultdict(dict)
for name in run.data.metrics:
    for point in client.get_metric_history(run.info.run_id, name):
        if "/" not in name:
            rows[point.step][name] = point.value
columns = json.load(open(client.download_artifacts(run.info.run_id, "accuracies.json")))
summary = {name: value for name, value in run.data.metrics.items() if "/" in name}
found = {"number": run.info.run_id, "config": run.data.params, "history": [rows[k] for k in sorted(rows)]}
print(json.dumps({**found, "summary": summary, "table": list(zip(*columns.values())), "state": run.info.status}))
"""
READERS = {"wandb": WANDB, "trackio": TRACKIO, "mlflow": MLFLOW}
ON_EACH = pytest.mark.parametrize("name", READERS)


def environment(folder):
    return {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def installed(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.slow  # a minute: each package takes seconds to start
@ON_EACH
def test_each_holds_the_runs_curves_settings_and_table(name, tmp_path):
    """Of a run that is interrupted and resumed, which is one run there too."""
    installed(name)
    env = {**environment(tmp_path), "PATH": "/usr/bin:/bin"}

    def stcli(*args):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "stcore.cli.main", *map(str, args)],
            cwd=tmp_path, env=env, capture_output=True, text=True,
        )  # fmt: skip
        return done

    first = stcli("train", *words({**RUN, "out": "run", "max_hours": 0}), "--track", name)
    assert first.returncode == 130, first.stderr
    second = stcli("train", "--resume", "run", "--track", name)
    assert second.returncode == 0, second.stderr
    done = subprocess.run(
        [sys.executable, "-c", READERS[name]], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(rows) == 2
    for row, there in zip(rows, found["history"], strict=True):
        for metric, value in logged.numbers(row).items():
            assert there[metric] == pytest.approx(value, rel=1e-9), metric
    assert str(found["config"]["method"]) == "n-fgsm"
    assert int(found["config"]["epochs"]) == 2
    assert float(found["config"]["epsilon"]) == pytest.approx(0.2)
    summary = logged.summary(result)
    assert {key: pytest.approx(value) for key, value in summary.items()}.items() <= found["summary"].items()
    np.testing.assert_array_equal(
        [list(map(str, row)) for row in found["table"]], [list(map(str, row)) for row in logged.table(result)]
    )
    if name == "mlflow":
        assert found["state"] == "FINISHED"


@ON_EACH
def test_none_is_imported_unless_it_is_asked_for(name):
    code = f"import sys, stcore.cli.main, stcore.trackers, stcore.api.training\nassert {name!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@ON_EACH
def test_a_missing_package_is_said(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"track: expected the package {name}.*pip install 'stcore\[{name}\]'"):
        make_tracker(name)


class Fake:
    """In place of a package: keeps the calls of its functions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def noted(*args, **given):
            self.calls.append((name, args, given))
            return None if name == "get_experiment_by_name" else self

        return noted

    info = property(lambda self: self)
    run_id = "number"
    summary = property(lambda self: self)


@ON_EACH
def test_each_keeps_the_contract_of_a_tracker(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, Fake())
    check_tracker(make_tracker(name))
    told = [called for called, _, _ in sys.modules[name].calls]
    assert told.count("log_metric" if name == "mlflow" else "log") >= 2
    assert ("set_terminated" if name == "mlflow" else "finish") in told
