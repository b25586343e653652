"""A server of ``/v1/completions`` that sends the bytes it is given, and an engine that is connected to servers."""

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.openai.engine import OpenAIEngine


@contextlib.contextmanager
def connected(model=None, **options):
    """An openai engine on an event loop of its own, and the function that runs a coroutine there."""
    with asyncio.Runner() as runner:
        engine = runner.run(OpenAIEngine.start(model, **options))
        try:
            yield engine, runner.run
        finally:
            runner.run(engine.close())


EVENTS = "text/event-stream; charset=utf-8"


@dataclass
class Reply:
    """An answer of a `FakeServer`: ``body`` is text, bytes, or an iterable of bytes that are sent one after another."""

    status: int = 200
    kind: str = EVENTS
    body: object = b""
    headers: dict = field(default_factory=dict)


MODELS = Reply(kind="application/json", body='{"data": [{"id": "fake", "max_model_len": 512}]}')


def event(*ids, text="x", finish=None, **choice):
    """One chunk of a stream, as `vllm serve` writes it, with log-probs of -1."""
    logprobs = {"token_logprobs": [-1.0] * len(ids)}
    choice = {"index": 0, "text": text, "token_ids": ids, "logprobs": logprobs, "finish_reason": finish} | choice
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
ONE_TOKEN = Reply(body=event(1, finish="length") + DONE)  # which is what an engine asks for when it starts


class FakeServer(ThreadingHTTPServer):
    """A server that is no vLLM.

    Each request for completions takes the next of ``replies``, and `ONE_TOKEN` when they are used up. ``bodies`` are
    the requests as JSON; ``cut`` is set when a client closes the connection before a reply was sent whole.
    """

    daemon_threads = True

    def __init__(self, *replies, models=MODELS):
        super().__init__(("127.0.0.1", 0), _FakeHandler)
        self.replies, self.models, self.bodies, self.cut = list(replies), models, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.metrics = Reply(404, "text/plain")
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class _FakeHandler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._send(self.server.metrics if self.path == "/metrics" else self.server.models)

    def do_POST(self):
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._send(self.server.replies.pop(0) if self.server.replies else ONE_TOKEN)

    def _send(self, reply):
        self.send_response(reply.status)
        for name, value in {"content-type": reply.kind, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        try:
            for part in [body] if isinstance(body, bytes) else body:
                self.wfile.write(part)
        except (BrokenPipeError, ConnectionResetError):
            self.server.cut.set()


@contextlib.contextmanager
def answering(folder, *replies, **options):
    """An engine, what runs a coroutine, and a fake server that gives these replies."""
    with FakeServer() as server, connected(base_url=server.url, tokenizer=folder, **options) as (engine, run):
        server.replies[:] = replies
        server.bodies.clear()
        yield engine, run, server


def request(text="ab", tokens=100, **options):
    return EngineRequest("r", list(text.encode()), tokens, **options)


def whole(*events, finish="length"):
    """A reply whose events end as vLLM's do."""
    return Reply(body=b"".join(events) + event(finish=finish) + DONE)
