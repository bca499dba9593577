"""A stand-in for Ollama: deterministic embeddings in which shared words mean nearness.

`POST /v1/embeddings` answers as Ollama's OpenAI-compatible endpoint does. The model's name ends
in the number of dimensions (`standin-256`), so that a test can change models.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
Vector = npt.NDArray[np.float32]


@lru_cache(maxsize=100_000)
def direction(word: str, dimensions: int) -> Vector:
    """Give each word a fixed random direction."""
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)


def embed(text: str, dimensions: int) -> Vector:
    """Add up the directions of the words, each damped by its repetitions; length 1."""
    counts: dict[str, int] = {}
    for word in WORD.findall(text):
        counts[word.lower()] = counts.get(word.lower(), 0) + 1
    total = direction("", dimensions) * np.float32(0.1)
    for word, count in counts.items():
        total = total + direction(word, dimensions) * np.float32(1 + np.log(count))
    unit: Vector = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


def dimensions_of(model: str) -> int:
    """Read the dimensions from the model's name."""
    return int(model.rpartition("-")[2])


class Handler(BaseHTTPRequestHandler):
    """The two routes that the core's Ollama providers use."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        if self.path.endswith("/embeddings"):
            self._answer(embeddings(request))
        else:
            self._answer({"choices": [{"message": {"role": "assistant", "content": "A summary."}}]})

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": []})

    def _answer(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the tests' output is the tests'."""


def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request for embeddings, as base64 or as lists."""
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    vectors = [embed(str(text), dimensions_of(request["model"])) for text in texts]
    as_base64 = request.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(v.tobytes()).decode() if as_base64 else v.tolist(),
        }
        for i, v in enumerate(vectors)
    ]
    return {"object": "list", "model": request["model"], "data": data, "usage": {}}


class Server(ThreadingHTTPServer):
    """A server whose clients may leave at any moment."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that the client cut."""


@contextmanager
def serve() -> Iterator[str]:
    """Serve on a free port of the loopback interface; give the base URL."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serve() as url:
        print(url, flush=True)
        threading.Event().wait()
