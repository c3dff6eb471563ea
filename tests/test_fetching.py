"""Fetching published sets: whatever a server answers, a file is whole and the right one, or it is not there."""

import contextlib
import hashlib
import importlib.util
import os
import re
import resource
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import contents
from test_readers import write_archive

from stcore.data import data_folder, fetch, import_file, load, verify
from stcore.data.download.http import receiving
from stcore.data.download.registry import PUBLISHED, File, Published
from stcore.errors import DataError, UsageError

ARCHIVE = "cifar-10-python.tar.gz"
PAGE = b"<!DOCTYPE html>\n<html><body>The server is down for maintenance</body></html>"
TIMEOUT = 0.4  # seconds


class Server:
    """A loopback server: what it answers to each path, and the paths it was asked for."""

    def __init__(self):
        self.answers, self.asked, self.over = {}, [], threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                with contextlib.suppress(OSError):  # of a client that has gone
                    server.answers.get(self.path.partition("?")[0], status(404))(self)

            def log_message(self, *args):
                """Nothing to say."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def at(self, path, answer):
        """The URL of a path that answers so."""
        self.answers[path] = answer
        return f"http://{self.host}{path}"

    def close(self):
        self.over.set()  # no answer waits any longer
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No proxy stands between this process and the loopback server, and the user's own settings do not count."""
    for name in ("STCLI_DATA", "STCLI_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


# What a server may answer


def headers(request, length, code=200, **more):
    request.send_response(code)
    for name, value in more.items():
        request.send_header(name.replace("_", "-"), value)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


def whole(body, claimed=None):
    def answer(request):
        headers(request, len(body) if claimed is None else claimed)
        request.wfile.write(body)

    return answer


def status(code):
    def answer(request):
        headers(request, len(PAGE), code)
        request.wfile.write(PAGE)

    return answer


def redirect(to):
    return lambda request: headers(request, 0, 302, Location=to)


def stall(server, body):
    """Half of it, and then nothing."""

    def answer(request):
        if body:
            headers(request, len(body))
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
        server.over.wait(10)

    return answer


def garble(request):
    headers(request, "many")
    request.wfile.write(PAGE)


def hang_up(request):
    request.close_connection = True


def endless(request):
    headers(request, None)
    while True:
        request.wfile.write(bytes(1 << 16))


# What is published here


def publish(monkeypatch, name, files, *urls):
    """A published set of these {name: bytes}, each of which lies at the URLs."""
    known = [File(file, len(raw), hashlib.sha256(raw).hexdigest(), urls) for file, raw in files.items()]
    monkeypatch.setitem(PUBLISHED, name, Published("small", tuple(known)))


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """CIFAR-10 with 120 images, as published: its bytes."""
    return write_archive(tmp_path_factory.mktemp("published"), 10, "python").read_bytes()


@pytest.fixture(scope="session")
def other(archive):
    """As many bytes that are not the published ones."""
    return archive[:-1] + bytes([archive[-1] ^ 1])


def refuse(server, archive, other):
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/{ARCHIVE}"


FAULTS = {
    "no answer": (lambda s, a, o: s.at("/f", stall(s, b"")), r"nothing for 0\.4 s after 0 bytes"),
    "stalls midway": (lambda s, a, o: s.at("/f", stall(s, a)), r"nothing for 0\.4 s after \d{6} bytes"),
    "truncates": (lambda s, a, o: s.at("/f", whole(a[:-9], len(a))), r"\d{6} bytes and then no more"),
    "a short file": (lambda s, a, o: s.at("/f", whole(a[:-9])), r"received \d{6} bytes from"),
    "an empty file": (lambda s, a, o: s.at("/f", whole(b"")), r"received 0 bytes from"),
    "a page": (lambda s, a, o: s.at("/f", whole(PAGE)), rf"an HTML page of {len(PAGE)} bytes"),
    "404": (lambda s, a, o: s.at("/f", status(404)), r"404 Client Error: Not Found"),
    "503": (lambda s, a, o: s.at("/f", status(503)), r"503 Server Error: Service Unavailable"),
    "redirects for ever": (lambda s, a, o: s.at("/f", redirect("/f")), r"received Exceeded 30 redirects from"),
    "redirects to a page": (
        lambda s, a, o: s.at(s.at("/p", whole(PAGE)) and "/f", redirect("/p")),
        "an HTML page",
    ),
    "other bytes": (lambda s, a, o: s.at("/f", whole(o)), r"received as many bytes with sha256 [0-9a-f]{64} from"),
    "goes on": (lambda s, a, o: s.at("/f", endless), r"received more than \d{6} bytes from"),
    "garbles": (lambda s, a, o: s.at("/f", garble), "received a malformed answer .*'many'.* from"),
    "hangs up": (
        lambda s, a, o: s.at("/f", hang_up),
        "received Remote end closed connection without response from",
    ),
    "refuses": (refuse, r"received \[Errno \d+\] Connection refused from"),
    "no such host": (lambda *args: f"http://nowhere.invalid/{ARCHIVE}", r"received .+ from nowhere\.invalid"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch, server, archive, other, fault):
    make, message = FAULTS[fault]
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, make(server, archive, other))
    begun = time.monotonic()
    with pytest.raises(DataError, match=message) as raised:
        fetch("cifar10", folder=tmp_path, timeout=TIMEOUT)
    assert time.monotonic() - begun < 60  # and not for ever
    said = str(raised.value)
    expected = f"expected {ARCHIVE} of {len(archive)} bytes with sha256 {hashlib.sha256(archive).hexdigest()}"
    assert said.startswith(f"{expected}, received ")
    assert "--mirror URL" in said
    assert "stcli data import FILE" in said
    assert "\n" not in said
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_mirror_takes_over(tmp_path, monkeypatch, server, archive, other, fault):
    make, message = FAULTS[fault]
    bad, good = make(server, archive, other), server.at("/good", whole(archive))
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, bad, good)
    told = []
    place = fetch("cifar10", folder=tmp_path, timeout=TIMEOUT, on_failure=told.append)
    assert contents(place) == {ARCHIVE: hashlib.sha256(archive).hexdigest()}
    assert len(told) == 1
    assert told[0].startswith(f"{ARCHIVE}: ")
    assert re.search(message.removeprefix("received "), told[0])
    assert server.asked[-1] == "/good"


@pytest.mark.parametrize("fault", ["stalls midway", "a page", "other bytes", "refuses"])
def test_an_existing_good_file_is_not_touched(tmp_path, monkeypatch, server, archive, other, fault):
    """Of two files one is good: the bad one cannot be had, the good one is not even asked for."""
    make, _ = FAULTS[fault]
    publish(monkeypatch, "svhn", {"good.mat": b"good", "bad.mat": archive}, make(server, archive, other))
    good = tmp_path / "svhn" / "good.mat"
    good.parent.mkdir()
    good.write_bytes(b"good")
    (tmp_path / "svhn" / "bad.mat").write_bytes(archive[:-9])
    before, since = contents(tmp_path), good.stat().st_mtime_ns
    with pytest.raises(DataError, match=r"expected bad\.mat"):
        fetch("svhn", folder=tmp_path, timeout=TIMEOUT)
    assert contents(tmp_path) == before
    assert good.stat().st_mtime_ns == since


def test_a_fetched_set_is_loaded_by_its_name(tmp_path, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", redirect("/moved")))
    server.at("/moved", whole(archive))
    monkeypatch.setenv("STCLI_DATA", str(tmp_path / "data"))
    assert fetch("cifar10") == tmp_path / "data" / "cifar10"
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / ARCHIVE
    own.write_bytes(archive)
    splits, expected = load("cifar10"), load(f"cifar10:{own}")
    for part in ("train", "validation", "test"):
        assert getattr(splits, part).fingerprint() == getattr(expected, part).fingerprint()
    assert [stored.state for stored in verify("cifar10")] == ["here"]
    asked = list(server.asked)
    fetch("cifar10")
    assert server.asked == asked  # it is here


def test_svhn_comes_in_two_files(tmp_path, monkeypatch, server):
    savemat = pytest.importorskip("scipy.io").savemat
    files, rng = {}, np.random.default_rng(0)
    for part in ("train", "test"):
        images = rng.integers(0, 256, (32, 32, 3, 60), np.uint8)
        savemat(tmp_path / "one.mat", {"X": images, "y": np.arange(60)[:, None] % 10 + 1})
        files[f"{part}_32x32.mat"] = (tmp_path / "one.mat").read_bytes()
    publish(monkeypatch, "svhn", files)
    for name, raw in files.items():
        server.at(f"/{name}", whole(raw))
    monkeypatch.setenv("STCLI_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"svhn: expected train_32x32\.mat .* run stcli data fetch svhn, or"):
        load("svhn")
    fetch("svhn", mirror=f"http://{server.host}")
    assert [len(part) for part in (load("svhn").train, load("svhn").test)] == [59, 60]


# Mirrors


@pytest.mark.parametrize(
    ("mirror", "paths"),
    [
        ("http://HOST", ["/a.bin", "/b.bin"]),
        ("http://HOST/", ["/a.bin", "/b.bin"]),
        ("http://HOST/sets/x", ["/sets/x/a.bin", "/sets/x/b.bin"]),
        ("http://HOST/sets/x/", ["/sets/x/a.bin", "/sets/x/b.bin"]),
        ("http://HOST/sets/a.bin", ["/sets/a.bin", "/sets/b.bin"]),
        ("http://HOST/sets/b.bin", ["/sets/a.bin", "/sets/b.bin"]),
        ("http://HOST/sets/a.bin?download=1", ["/sets/a.bin?download=1", "/sets/b.bin"]),
    ],
)
def test_a_mirror_of_ones_own_goes_first(tmp_path, monkeypatch, server, mirror, paths):
    files = {"a.bin": b"aaa", "b.bin": b"bb"}
    publish(monkeypatch, "svhn", files, server.at("/usual", status(503)))
    for path in paths:
        plain = path.partition("?")[0]
        server.at(plain, whole(files[plain.rpartition("/")[2]]))
    fetch("svhn", folder=tmp_path, mirror=mirror.replace("HOST", server.host))
    assert server.asked == paths
    assert [stored.state for stored in verify("svhn", tmp_path)] == ["here", "here"]


def test_the_usual_places_follow_a_mirror_that_fails(tmp_path, monkeypatch, server):
    publish(monkeypatch, "svhn", {"a.bin": b"aaa"}, server.at("/usual", whole(b"aaa")))
    fetch("svhn", folder=tmp_path, mirror=f"http://{server.host}/mine")
    assert server.asked == ["/mine/a.bin", "/usual"]


@pytest.mark.parametrize(
    "mirror", ["", "here", "ftp://host/x", "file:///etc", "http://", "http://[", "http://h:99999"]
)
def test_a_mirror_that_is_no_url_is_refused(tmp_path, mirror):
    with pytest.raises(UsageError, match=r"mirror: expected a URL such as https://host/folder/, received "):
        fetch("cifar10", folder=tmp_path, mirror=mirror)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(tmp_path, timeout):
    with pytest.raises(UsageError, match="timeout: expected a number of seconds above 0; received"):
        fetch("cifar10", folder=tmp_path, timeout=timeout)


def test_an_unknown_set_is_refused(tmp_path):
    for function in (fetch, verify):
        with pytest.raises(UsageError, match="among cifar10, cifar100, svhn; received 'mnist'"):
            function("mnist", folder=tmp_path)


# Offline


@pytest.fixture
def calls(monkeypatch):
    """The network calls that were tried; none is made."""
    tried = []

    def refused(*args, **kwargs):
        tried.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    return tried


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_no_call_is_made(tmp_path, monkeypatch, calls, archive, how):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, "http://127.0.0.1:9/x")
    command = f"stcli data fetch cifar10 --data-dir '{tmp_path}/my data'"
    if how == "environment":
        monkeypatch.setenv("STCLI_OFFLINE", "1")
        command = f"STCLI_OFFLINE=0 {command}"
    with pytest.raises(DataError, match=r"received none, and offline no network call is made; ") as raised:
        fetch("cifar10", folder=tmp_path / "my data", mirror="http://127.0.0.1:9/", offline=how == "option")
    assert str(raised.value).endswith(f"with a network, run {command}")
    assert calls == []
    (tmp_path / "my data" / "cifar10").mkdir(parents=True)
    (tmp_path / "my data" / "cifar10" / ARCHIVE).write_bytes(archive)  # what is here needs no network
    fetch("cifar10", folder=tmp_path / "my data", offline=how == "option")
    assert calls == []


@pytest.mark.parametrize("value", ["0", ""])
def test_offline_mode_can_be_off(tmp_path, monkeypatch, calls, value):
    monkeypatch.setenv("STCLI_OFFLINE", value)
    publish(monkeypatch, "cifar10", {ARCHIVE: b"x"}, "http://127.0.0.1:9/x")
    with pytest.raises(DataError, match="no network here from 127"):
        fetch("cifar10", folder=tmp_path)
    assert calls  # so the test above would have seen one


# The disk


class Told:
    """A progress that remembers."""

    def __init__(self, interrupt=False):
        self.stretches, self.interrupt = [], interrupt

    def begin(self, label, total, unit="images"):
        self.stretches.append({"label": label, "total": total, "unit": unit, "done": 0})

    def advance(self, amount, note=""):
        self.stretches[-1]["done"] += amount
        self.stretches[-1]["note"] = note
        if self.interrupt:
            raise KeyboardInterrupt

    def end(self):
        self.stretches[-1]["over"] = True


def test_progress_is_told_in_megabytes(tmp_path, monkeypatch, server):
    raw = bytes(3_400_000)
    publish(monkeypatch, "svhn", {"big.mat": raw}, server.at("/bad", whole(PAGE)), server.at("/big", whole(raw)))
    told = Told()
    fetch("svhn", folder=tmp_path, progress=told)
    about = {"label": "big.mat", "total": 3, "unit": "MB", "note": f"from {server.host}", "over": True}
    assert told.stretches == [{**about, "done": 0}, {**about, "done": 3}]  # each mirror from the start


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", whole(archive)))
    with pytest.raises(KeyboardInterrupt):
        fetch("cifar10", folder=tmp_path, progress=Told(interrupt=True))
    assert contents(tmp_path) == {}


def test_what_a_killed_process_left_is_swept_but_no_file_in_the_making(tmp_path, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", whole(archive)))
    place = tmp_path / "cifar10"
    place.mkdir()
    for pid, age in (("1", 7200), ("2", 60)):
        left = place / f".{ARCHIVE}.{pid}.part"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    fetch("cifar10", folder=tmp_path)
    assert sorted(contents(place)) == [f".{ARCHIVE}.2.part", ARCHIVE]


def test_a_full_disk_is_no_fault_of_the_mirror(tmp_path, monkeypatch, server, archive):
    """Stood in for by the limit on a file's size. It ends at once: the next mirror could not help."""
    places = [server.at(path, whole(archive)) for path in ("/1", "/2")]
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, *places)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UsageError, match=rf"{ARCHIVE} cannot be written \(File too large\). Free space or"):
            fetch("cifar10", folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == {}
    assert server.asked == ["/1"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, server, archive):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", whole(archive)))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/cifar10 cannot be written \(Not a directory\)"):
        fetch("cifar10", folder=tmp_path / "file")
    assert server.asked == []


@given(
    published=st.binary(max_size=40),
    chunks=st.lists(st.binary(max_size=20), max_size=4) | st.none(),
    before=st.binary(max_size=5) | st.none(),
)
def test_a_file_is_the_published_one_or_as_it_was(tmp_path_factory, published, chunks, before):
    """chunks: what comes; None for the published bytes themselves."""
    target = tmp_path_factory.mktemp("any") / "file"
    if before is not None:
        target.write_bytes(before)
    came = [published] if chunks is None else chunks
    known = File("file", len(published), hashlib.sha256(published).hexdigest(), ())
    right = b"".join(came) == published
    with contextlib.nullcontext() if right else pytest.raises(DataError), receiving(target, known) as received:
        for chunk in came:
            received.write(chunk)
    assert (target.read_bytes() if target.exists() else None) == (published if right else before)
    assert [path.name for path in target.parent.iterdir()] == ["file"] * target.exists()


# The data folder


def test_the_data_folder_is_chosen_by_argument_environment_and_system(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder().parts[-2:] == ("stcore", "data")
    assert tmp_path in data_folder().parents
    monkeypatch.setenv("STCLI_DATA", "~/sets")
    assert data_folder() == tmp_path / "sets"
    assert data_folder("here") == Path("here")


def test_verify_tells_missing_and_damaged_files(tmp_path, monkeypatch):
    publish(monkeypatch, "svhn", {"a": b"aaa", "b": b"bbb", "c": b"ccc", "d": b"ddd"})
    (tmp_path / "svhn").mkdir()
    for name, raw in {"a": b"aaa", "b": b"bb", "c": b"ccd"}.items():
        (tmp_path / "svhn" / name).write_bytes(raw)
    assert [one.state for one in verify("svhn", tmp_path)] == ["here", "damaged", "damaged", "missing"]


def test_a_damaged_file_is_fetched_again(tmp_path, monkeypatch, server, archive, other):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive}, server.at("/f", whole(archive)))
    monkeypatch.setenv("STCLI_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    for damaged in (archive[:99], other):
        (tmp_path / "cifar10" / ARCHIVE).write_bytes(damaged)
        if len(damaged) == 99:
            with pytest.raises(DataError, match=r"received 99 bytes; run stcli data fetch cifar10, or name"):
                load("cifar10")
        fetch("cifar10")
        assert (tmp_path / "cifar10" / ARCHIVE).read_bytes() == archive


# What was downloaded by hand


@pytest.mark.parametrize("name", [ARCHIVE, "cifar-10-python.tar(1).gz"])
def test_a_file_is_imported_under_any_name(tmp_path, monkeypatch, archive, name):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive})
    (tmp_path / name).write_bytes(archive)
    imported = import_file(tmp_path / name, tmp_path / "data")
    assert imported == ("cifar10", tmp_path / "data" / "cifar10" / ARCHIVE)
    assert imported.path.read_bytes() == archive
    assert import_file(imported.path, tmp_path / "data") == imported  # onto itself
    assert imported.path.read_bytes() == archive


@pytest.mark.parametrize("raw", [PAGE, b"", "truncated", "other"])
@pytest.mark.parametrize("name", [ARCHIVE, "something.tar.gz"])
def test_a_wrong_file_is_not_imported(tmp_path, monkeypatch, archive, other, name, raw):
    publish(monkeypatch, "cifar10", {ARCHIVE: archive})
    raw = {"truncated": archive[:-9], "other": other}.get(raw, raw)
    (tmp_path / name).write_bytes(raw)
    target = tmp_path / "data" / "cifar10" / ARCHIVE
    target.parent.mkdir(parents=True)
    target.write_bytes(archive)
    expected = f"{ARCHIVE} of {len(archive)} bytes" if name == ARCHIVE else f"one of {ARCHIVE}, cifar-100-python"
    with pytest.raises(DataError, match=re.escape(f"{name}: expected {expected}")) as raised:
        import_file(tmp_path / name, tmp_path / "data")
    assert f"received {len(raw)} bytes with sha256 {hashlib.sha256(raw).hexdigest()}; " in str(raised.value)
    assert contents(tmp_path / "data") == {f"cifar10/{ARCHIVE}": hashlib.sha256(archive).hexdigest()}


def test_only_a_file_is_imported(tmp_path):
    with pytest.raises(DataError, match="which is a folder: name the archive"):
        import_file(tmp_path)
    with pytest.raises(DataError, match="which is not there: check the path"):
        import_file(tmp_path / "nowhere")


# The published sets themselves


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_hashes_of_cifar_are_those_of_keras(name):
    spec = importlib.util.find_spec("keras")
    if spec is None:
        pytest.skip("keras is not installed")
    source = (Path(spec.origin).parent / "src" / "datasets" / f"{name}.py").read_text()
    (file,) = PUBLISHED[name].files
    assert re.findall(r'"([0-9a-f]{64})"', source) == [file.sha256]
    assert re.search(r'origin = "(.*)"', source)[1] == file.urls[-1]


def test_every_published_file_can_be_told_from_the_others():
    files = [file for one in PUBLISHED.values() for file in one.files]
    for what in ("name", "sha256", "size"):
        assert len({getattr(file, what) for file in files}) == len(files)
    for file in files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert all(url.startswith("http") and url.endswith(f"/{file.name}") for url in file.urls)


def test_the_page_for_users_has_the_same_files():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    rows = re.findall(r"^(\S+) +(\d+)  ([0-9a-f]{64})$", page, re.M)
    assert rows == [(file.name, str(file.size), file.sha256) for one in PUBLISHED.values() for file in one.files]
