"""A local OpenAI-compatible server for tests: chat completions, keys, and faults on demand."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-0123456789"


class OpenAIServer:
    """Answers `answer(messages)`; requests are kept; `faults` are statuses sent first."""

    def __init__(self, answer: Callable[[list[dict]], str | None]) -> None:
        self.answer = answer
        self.requests: list[dict] = []
        self.keys: set[str] = set()
        self.faults: list[int] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *args) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> "OpenAIServer":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        key = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.lock:
            self.keys.add(key)
            fault = self.faults.pop(0) if self.faults else None
        if handler.path != "/v1/chat/completions":
            return self.send(handler, 404, {"error": {"message": f"no {handler.path}"}})
        if key != KEY:
            return self.send(handler, 401, {"error": {"message": f"Incorrect API key: {key}"}})
        if fault:
            return self.send(handler, fault, {"error": {"message": f"fault, key {key}"}})
        with self.lock:
            self.requests.append(body)
        content = self.answer(body["messages"])
        message = {"role": "assistant", "content": content}
        return self.send(handler, 200, {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        })  # fmt: skip

    def send(self, handler: BaseHTTPRequestHandler, status: int, content: dict) -> None:
        data = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Retry-After-Ms", "1")  # the client's pause before it tries again
        handler.end_headers()
        handler.wfile.write(data)
