"""A server on this machine that speaks as OpenAI's API does, for tests."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any

Handler = http.server.BaseHTTPRequestHandler


class Server:
    """`answer(handler, posted)` writes the answer to each request, which it keeps."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[Handler, dict[str, Any]], None] = lambda handler, posted: say(handler, "yes")
        self.inside = self.most_inside = 0
        lock, server = threading.Lock(), self

        class Post(Handler):
            def do_POST(self) -> None:
                posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.posted.append(posted)
                    server.headers.append({**self.headers, "path": self.path})
                    server.inside += 1
                    server.most_inside = max(server.inside, server.most_inside)
                try:
                    server.answer(self, posted)
                except OSError:
                    pass  # who asked has gone
                finally:
                    with lock:
                        server.inside -= 1

            def log_message(self, *_: Any) -> None:
                pass

        class Listening(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

        self.http = Listening(("127.0.0.1", 0), Post)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def send(handler: Handler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def say(handler: Handler, text: str | None, reason: str = "stop") -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    send(handler, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())
