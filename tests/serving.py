"""An OpenAI-compatible chat server on loopback, with whatever goes wrong on the way, and a log of
what was delivered."""

import json
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes close() send RST


@dataclass(frozen=True)
class Fault:
    """What a client meets instead of a reply: an HTTP status, a reset, half a body, another body,
    or a wait without an end."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    reset: bool = False
    half: bool = False
    body: str = ""
    content_type: str = "application/json"
    wait: float = 0.0


class ChatServer:
    """Serves `reply(request)`, a text, (finish reason, text) or a `Fault`, to POST /v1/chat/completions while it is open
    as a context.

    `request` holds what the client sent, "prompt" (the text of its only message) and "nth" (1 for
    the first call with this prompt). `delivered` counts the replies that went out per prompt;
    `usage` sums their tokens, one a word.
    """

    def __init__(self, reply: Callable[[dict], str | Fault]):
        self.reply, self.lock = reply, threading.Lock()
        self.requests: list[dict] = []
        self.times = defaultdict(list)  # prompt -> when it was asked
        self.delivered = Counter()
        self.usage = Counter()
        self.open, self.most_open = 0, 0
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                [message] = request["messages"]
                assert self.path == "/v1/chat/completions" and message["role"] == "user"
                prompt = message["content"]
                with server.lock:
                    server.requests.append(request)
                    server.times[prompt].append(time.monotonic())
                    server.open += 1
                    server.most_open = max(server.most_open, server.open)
                try:
                    self.answer(
                        request,
                        server.reply(
                            request | {"prompt": prompt, "nth": len(server.times[prompt])}
                        ),
                    )
                finally:
                    with server.lock:
                        server.open -= 1

            def answer(self, request, reply):
                prompt = request["messages"][0]["content"]
                finish = "stop"
                if isinstance(reply, tuple):
                    finish, reply = reply
                match reply:
                    case str():
                        usage = {
                            "prompt_tokens": len(prompt.split()),
                            "completion_tokens": len(reply.split()),
                        }
                        with server.lock:
                            server.delivered[prompt] += 1
                            server.usage.update(usage)
                        self.send(200, completion(reply, usage, finish, request["model"]))
                    case Fault(reset=True):
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        self.rfile.close()
                        self.wfile.close()
                        self.connection.close()
                    case Fault(half=True):
                        self.send(200, completion("lost", {}), cut=20)
                    case Fault(body=body, content_type=content_type) if body:
                        status = reply.status or 200
                        self.send(status, body.encode(), (("Content-Type", content_type),))
                    case Fault(wait=seconds) if seconds:
                        time.sleep(seconds)  # nobody listens any more
                    case Fault(status=status, headers=headers):
                        self.send(
                            status,
                            json.dumps({"error": {"message": f"status {status}"}}).encode(),
                            headers,
                        )

            def send(self, status, body, headers=(), cut=0):
                self.send_response(status)
                headers = {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                } | dict(headers)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: len(body) - cut])

            def log_message(self, *_):
                pass

        return Handler


def completion(text: str, usage: dict, finish: str = "stop", model: str = "any") -> bytes:
    """The body of a chat completion."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
    }
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
    }
    return json.dumps(
        body | ({"usage": usage | {"total_tokens": sum(usage.values())}} if usage else {})
    ).encode()
