"""An S3 API on loopback: moto's server with its checks of signatures and rights on, and faults.

Objects live in memory. What lies in the bucket is changed through `objects`; what happens on the
way through `fault` and `stop_after`.
"""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

REGION = "us-east-1"
BUCKET = "langsae"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


class _Handler(MotoRequestHandler):
    """moto's, but silent and with connections that stay open, as a store's do."""

    protocol_version = "HTTP/1.1"

    def log(self, *_, **__) -> None:
        pass

    def connection_dropped(self, *_) -> None:
        """After a `ConnectionError` of the application: nothing more comes on this connection."""
        self.close_connection = True


@dataclass
class _Faults:
    """A WSGI application around moto's that spoils some answers."""

    inner: object
    keys: dict[str, str] = field(default_factory=dict)  # end of a path: kind of fault
    left: int | None = None  # objects served before the server dies
    moved: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict, start_response) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if self._dead(path, method in ("GET", "PUT") and "/files/md5/" in path):
            raise ConnectionError("dead")
        kind = next((kind for end, kind in self.keys.items() if path.endswith(end)), None)
        if kind is None or method != "GET":
            return self.inner(environ, start_response)
        if kind == "unavailable":
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._cut(environ, start_response)

    def _dead(self, path: str, moves_object: bool) -> bool:
        with self.lock:
            if self.left == 0:
                return True
            if moves_object:
                self.moved.append(path)
                self.left = self.left and self.left - 1
            return False

    def _cut(self, environ: dict, start_response) -> Iterator[bytes]:
        """Half of the body that the header promises, and the end of the connection."""
        body = b"".join(self.inner(environ, start_response))
        yield body[: len(body) // 2]
        raise ConnectionError("cut")


class S3Server:
    """A store with bucket BUCKET; `environ` and `config` let DVC reach it as its owner."""

    def __enter__(self) -> "S3Server":
        self._faults = _Faults(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(
            "127.0.0.1", 0, self._faults, threaded=True, request_handler=_Handler
        )
        self._server.daemon_threads = True
        self._server.log = lambda *_, **__: None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._post("reset", b"")
        self.key, self.secret = self._user()
        self._post("reset-auth", b"0")  # from here on every request is checked
        self.objects = boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION, aws_access_key_id=self.key,
            aws_secret_access_key=self.secret, config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        self.objects.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_) -> None:
        self._post("reset-auth", b"inf")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _post(self, action: str, data: bytes) -> None:
        request = urllib.request.Request(
            f"{self.url}/moto-api/{action}", data=data, headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).read()

    def _user(self) -> tuple[str, str]:
        iam = boto3.client("iam", endpoint_url=self.url, region_name=REGION,
                           aws_access_key_id="root", aws_secret_access_key="root")  # fmt: skip
        iam.create_user(UserName="owner")
        iam.put_user_policy(UserName="owner", PolicyName="own", PolicyDocument=json.dumps(_POLICY))
        made = iam.create_access_key(UserName="owner")["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    @property
    def environ(self) -> dict[str, str]:
        """The owner's credentials, as a user has them in the environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",  # s3fs tries each five times, too
        }

    def keys(self, prefix: str = "") -> list[str]:
        """The keys in the bucket that start with `prefix`."""
        pages = self.objects.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        return self.objects.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.objects.put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.objects.delete_object(Bucket=BUCKET, Key=key)

    @property
    def moved(self) -> list[str]:
        """The data objects that were got and put, in order."""
        return list(self._faults.moved)

    @contextlib.contextmanager
    def fault(self, end: str, kind: str) -> Iterator[None]:
        """GETs of paths that end so are "unavailable" (503) or "cut" half-way, while it lasts."""
        self._faults.keys[end] = kind
        try:
            yield
        finally:
            del self._faults.keys[end]

    @contextlib.contextmanager
    def stop_after(self, objects: int) -> Iterator[None]:
        """Serve so many more objects, then drop every connection, while it lasts."""
        self._faults.left = objects
        try:
            yield
        finally:
            self._faults.left = None
