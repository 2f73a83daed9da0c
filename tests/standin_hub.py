"""A stand-in for the model hub: serves small repositories on 127.0.0.1 in the hub's own protocol.

The real loaders (transformers, TransformerLens, sae_lens, sparsify, datasets) run against it
unchanged once HF_ENDPOINT names it. huggingface_hub reads that variable when imported, so a loader
runs in a process of its own: `run_with_hub`.
"""

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "standin-token"  # opens every gated repository
LFS_SUFFIXES = {".bin", ".npz", ".parquet", ".safetensors"}  # the hub stores these by sha256
DEAD_PROXY = "http://127.0.0.1:9"  # the discard port: nothing listens, so no other host is reached

REFUSALS = {"unavailable": 503, "busy": 429}

API = re.compile(
    r"/api/(?P<type>model|dataset)s/(?P<id>[^/]+(?:/[^/]+)?)"
    r"(?:/(?P<what>revision|tree|paths-info)/(?P<rev>[^/]+)(?:/(?P<path>.+))?)?"
)
RESOLVE = re.compile(
    r"/(?:(?P<type>dataset)s/)?(?P<id>[^/]+(?:/[^/]+)?)/(?P<what>resolve)/(?P<rev>[^/]+)/(?P<path>.+)"
)


class HubError(Exception):
    def __init__(self, status: int, code: str = "", commit: str = ""):
        self.status, self.code, self.commit = status, code, commit


class Request(NamedTuple):
    method: str
    path: str  # unquoted, without the query
    status: int


@dataclass
class Fault:
    # "unavailable" (503), "busy" (429, Retry-After: 7), "reset" or "truncate" (half the body),
    # "corrupt" (a wrong byte)
    kind: str
    times: int
    method: str


@dataclass
class Repo:
    gated: bool = False
    revisions: dict[str, str] = field(default_factory=dict)  # branch or ref -> commit
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)  # commit -> path -> file

    def commit(self, revision: str) -> str:
        commit = self.revisions.get(revision, revision)
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound")
        return commit


class StandinHub:
    """`with StandinHub(folder) as hub:` then `hub.add_repo(...)`; loaders use `hub.environ`."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.sent = 0  # bytes of answers to GET
        self.faults: dict[str, Fault] = {}

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a loader's process needs: this hub, a cache of its own, no token, no other host."""
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), DEAD_PROXY)
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.folder / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "SPARSIFY_DISABLE_TRITON": "1",
            **proxies,
            **{name.upper(): value for name, value in proxies.items()},
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }

    def add_repo(
        self,
        repo_id: str,
        files: dict[str, bytes | Path],
        repo_type: str = "model",
        revision: str = "main",
        commit: str | None = None,
        gated: bool = False,
    ) -> str:
        """Commit `files` and point `revision` at them; earlier commits stay. Returns the commit."""
        contents = {
            p: f if isinstance(f, bytes) else Path(f).read_bytes() for p, f in files.items()
        }
        digests = [f"{p} {_sha256(data)}" for p, data in sorted(contents.items())]
        commit = commit or hashlib.sha1("\n".join(digests).encode()).hexdigest()
        root = self.folder / "repos" / repo_type / repo_id / commit
        for path, data in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        repo = self.repos.setdefault((repo_type, repo_id), Repo())
        repo.gated = repo.gated or gated
        repo.revisions[revision] = commit
        repo.commits[commit] = {path: root / path for path in contents}
        return commit

    def fault(self, path: str, kind: str, times: int = 1, method: str = "GET"):
        """The next `times` requests whose path ends with `path` go wrong; see `Fault.kind`."""
        self.faults[path] = Fault(kind, times, method)

    def take_fault(self, path: str, method: str) -> str | None:
        for suffix, fault in self.faults.items():
            if path.endswith(suffix) and method == fault.method and fault.times > 0:
                fault.times -= 1
                return fault.kind
        return None

    def asked(self, method: str = "GET") -> list[str]:
        return [request.path for request in self.requests if request.method == method]


def run_with_hub(hub: StandinHub, command: str | list[str], timeout: float = 300, **environ: str):
    """Run Python source (or an argument list) as a process that knows only this hub.

    `HF_TOKEN=TOKEN` opens the gated repositories, `HF_HUB_OFFLINE="1"` cuts even this hub off.
    """
    argv = [sys.executable, "-c", command] if isinstance(command, str) else command
    ours = ("HF_", "HUGGING", "TRANSFORMERS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        argv,
        env={**clean, **hub.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _object_id(path: str, data: bytes) -> str:
    """The hub's ETag: sha256 for a file in LFS, git's blob id for any other."""
    if Path(path).suffix in LFS_SUFFIXES:
        return _sha256(data)
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, file: Path) -> dict:
    data = file.read_bytes()
    entry = {"type": "file", "path": path, "size": len(data), "oid": _object_id(path, data)}
    if Path(path).suffix in LFS_SUFFIXES:
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def _folder(path: str) -> dict:
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


def _tree(files: dict[str, Path], root: str | None, recursive: bool) -> list[dict]:
    """Every file and folder under `root`; without `recursive`, only its direct children."""
    prefix = f"{root.rstrip('/')}/" if root else ""
    inside = {path: file for path, file in files.items() if path.startswith(prefix)}
    if prefix and not inside:
        raise HubError(404, "EntryNotFound")
    parents = {str(up) for path in inside for up in Path(path).parents if str(up) != "."}
    folders = [_folder(path) for path in sorted(parents) if path.startswith(prefix)]
    entries = folders + [_entry(path, file) for path, file in sorted(inside.items())]
    return [e for e in entries if recursive or "/" not in e["path"].removeprefix(prefix)]


class _Server(ThreadingHTTPServer):
    def shutdown_request(self, request):
        self.close_request(request)  # without the usual FIN first, or no reset would be one


class _Handler(BaseHTTPRequestHandler):
    hub: StandinHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        match = API.fullmatch(url.path) or RESOLVE.fullmatch(url.path)
        length = int(self.headers.get("Content-Length", 0))
        form = parse_qs(self.rfile.read(length).decode()) if length else {}
        self.fault = self.hub.take_fault(unquote(url.path), self.command)
        try:
            if self.fault in REFUSALS:
                raise HubError(REFUSALS[self.fault])
            if match is None:
                raise HubError(404)
            asked = {k: unquote(v) for k, v in match.groupdict().items() if v}
            self._answer(asked, {**parse_qs(url.query), **form})
        except HubError as error:
            self._send(
                error.status,
                json.dumps({"error": error.code}).encode(),
                {
                    "X-Error-Code": error.code,
                    "X-Repo-Commit": error.commit,
                    "Retry-After": "7" if error.status == 429 else "",
                },
            )

    do_HEAD = do_POST = do_GET

    def _answer(self, asked: dict, query: dict):
        repo = self.hub.repos.get((asked.get("type", "model"), asked["id"]))
        if repo is None:  # the hub does not tell a stranger whether a repository exists
            raise HubError(401, "RepoNotFound")
        commit = repo.commit(asked.get("rev", "main"))
        files, what, path = repo.commits[commit], asked.get("what"), asked.get("path")
        if what == "resolve":
            given = self.headers.get("Authorization")
            if repo.gated and given != f"Bearer {TOKEN}":
                # 403: known, but without the licence
                raise HubError(403 if given else 401, "GatedRepo", commit)
            if path not in files:
                raise HubError(404, "EntryNotFound", commit)
            return self._send_file(path, files[path].read_bytes(), commit)
        if what == "tree":
            found = _tree(files, path, query.get("recursive", [""])[0].lower() in {"1", "true"})
        elif what == "paths-info":
            entries = _tree(files, None, recursive=True)
            found = [entry for entry in entries if entry["path"] in query.get("paths", [])]
        else:
            siblings = [{"rfilename": path} for path in sorted(files)]
            found = {"id": asked["id"], "sha": commit, "siblings": siblings, "tags": []}
            found |= {"private": False, "gated": "manual" if repo.gated else False}
        return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path: str, data: bytes, commit: str):
        headers = {"ETag": f'"{_object_id(path, data)}"', "X-Repo-Commit": commit}
        headers["Accept-Ranges"] = "bytes"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        if not wanted:
            return self._send(200, data, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._send(206, data[start : end + 1], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]):
        self.hub.requests.append(Request(self.command, unquote(urlsplit(self.path).path), status))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.sent += len(body)
        broken = self.fault in {"reset", "truncate"}
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if self.fault == "reset":  # lingering for 0 s sends RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = self.close_connection or broken
