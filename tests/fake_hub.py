"""A Hugging Face hub on the loopback interface: as much of its interface as a push and a download ask for."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"


class Hub(ThreadingHTTPServer):
    """files: of each repository, by path.   private: of each, as it was made.   commits: their messages."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.private, self.commits = {}, {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repository):
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing is printed."""

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.files.setdefault(name, {})
            self.server.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            return self.answer({"url": f"{self.server.url}/{name}", "name": name})
        _, _, _, owner, name, what, *_ = path.split("/")
        repository = f"{owner}/{name}"
        if what == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            )
        assert what == "commit"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.server.commits.append(line["value"]["summary"])
            else:
                content = base64.b64decode(line["value"]["content"])
                self.server.files[repository][line["value"]["path"]] = content
        commit = self.server.commit_of(repository)
        return self.answer({"commitUrl": f"{self.server.url}/{repository}/commit/{commit}", "commitOid": commit})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            owner, name, *_ = path.removeprefix("/api/models/").split("/")
            repository = f"{owner}/{name}"
            if repository not in self.server.files:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            files = [{"rfilename": one} for one in self.server.files[repository]]
            commit = self.server.commit_of(repository)
            if "/tree/" in path:
                return self.answer(
                    [
                        {
                            "type": "file",
                            "path": one,
                            "size": len(content),
                            "oid": hashlib.sha1(content).hexdigest(),
                        }
                        for one, content in self.server.files[repository].items()
                    ]
                )
            return self.answer({"id": repository, "modelId": repository, "sha": commit, "siblings": files})
        owner, name, resolve, _, *rest = path.removeprefix("/").split("/")
        assert resolve == "resolve"
        repository, file = f"{owner}/{name}", "/".join(rest)
        content = self.server.files.get(repository, {}).get(file)
        if content is None:
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        tag = hashlib.sha1(content).hexdigest()
        return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=self.server.commit_of(repository))

    do_HEAD = do_GET


@contextlib.contextmanager
def serving():
    """A hub that answers during the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
