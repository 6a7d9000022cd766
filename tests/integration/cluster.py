"""A whole cluster on this machine, started by `prism up`, and a client of its HTTP API.

Only Python's standard library is used, so that these tests run where the cluster does.
"""
import base64
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PRISM_BIN_DIR", ROOT / "build/release/bin"))
ORACLE = ROOT / "tests/oracle"
DEMO = ROOT / "models/demo"
# Sanitizers slow everything down by about this.
SLOW = float(os.environ.get("PRISM_TEST_SLOWDOWN", "1"))


class Cluster:
    """`prism up` with a micro checkpoint, or with the demo model where that is None; use as a context manager."""

    def __init__(self, model="moe-micro", encoders=1, decoders=1, tensor_parallel=1, extra=(), result_cache_bytes=0):
        # No result cache unless a test is about it: the same question is asked twice to be computed twice.
        self.log_dir = tempfile.TemporaryDirectory(prefix="prism_test_")
        self.state_file = Path(self.log_dir.name) / "state.json"
        if model is not None:
            which = ["--model", str(ORACLE / "models" / model), "--load-format", "synthetic"]
        else:  # what is built in the checkout finds it by itself
            which = [] if BIN.resolve().is_relative_to(ROOT) else ["--model", str(DEMO)]
        command = [str(BIN / "prism"), "up", *which,
                   "--port", str(free_port()), "--vision-encoders", str(encoders), "--decoders", str(decoders),
                   "--tensor-parallel-size", str(tensor_parallel), "--log-dir", self.log_dir.name,
                   "--state-file", str(self.state_file), "--result-cache-bytes", str(result_cache_bytes), *extra]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.stderr = []
        self.reader = threading.Thread(target=lambda: self.stderr.extend(self.process.stderr), daemon=True)
        self.reader.start()
        line = ""
        deadline = time.monotonic() + 60 * SLOW
        while not line.startswith("ready ") and time.monotonic() < deadline and self.process.poll() is None:
            line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.stop()
            raise RuntimeError("the cluster did not start:\n" + "".join(self.stderr))
        self.port = int(re.match(r"ready http://127\.0\.0\.1:(\d+)", line).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.log_dir.cleanup()

    def children(self):
        """pid -> program name, of the processes that `prism up` started."""
        children = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = Path("/proc", pid, "stat").read_text()
                if int(stat.rsplit(")", 1)[1].split()[1]) == self.process.pid:
                    children[int(pid)] = Path(os.readlink(f"/proc/{pid}/exe")).name
            except (OSError, ValueError):
                continue
        return children

    def stop(self):
        """SIGTERM; the exit code and the seconds it took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        seconds = time.monotonic() - begun
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        for log in Path(self.log_dir.name).iterdir():
            expect_no_report(log.name, log.read_text(errors="replace"))
        expect_no_report("prism up", "".join(self.stderr))
        return code, seconds

    def request(self, method, path, body=None, timeout=120, headers=()):
        """(status, parsed body or text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json", **dict(headers)})
            response = connection.getresponse()
            text = response.read().decode()
            try:
                return response.status, json.loads(text)
            except json.JSONDecodeError:
                return response.status, text
        finally:
            connection.close()

    def metric(self, program, sample):
        """The value of a sample ("NAME" or "NAME{LABELS}"), summed over the router, or all decoders or vision-encoders."""
        total = 0.0
        for member in json.loads(self.state_file.read_text())["programs"]:
            if not member["name"].startswith(program):
                continue
            connection = http.client.HTTPConnection("127.0.0.1", member["metrics_port"], timeout=60 * SLOW)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            total += sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == sample)
        return total

    def lines(self, message, **fields):
        """The log lines of all programs with this message and these fields, as objects."""
        found = []
        for log in sorted(Path(self.log_dir.name).iterdir()):
            for line in log.read_text(errors="replace").splitlines():
                if '"message":"' + message + '"' not in line or not line.endswith("}"):
                    continue
                entry = json.loads(line)
                if all(entry.get(key) == value for key, value in fields.items()):
                    found.append(entry)
        return found

    def await_lines(self, count, message, **fields):
        """The same once there are `count`: a line is written when its call is over, which nobody waits for."""
        deadline = time.monotonic() + 30 * SLOW
        while len(found := self.lines(message, **fields)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{count} lines {message!r} with {fields} wanted, found: {found}")
            time.sleep(0.02)
        return found

    def chat(self, body, timeout=120):
        """A chat that must succeed; the parsed answer."""
        status, answer = self.request("POST", "/v1/chat/completions", body, timeout)
        assert status == 200, (status, answer)
        return answer

    def stream(self, body, timeout=120):
        """Yields each `data:` object of a streamed chat; raises StreamError on an error of any kind."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(dict(body, stream=True)),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise StreamError(response.status, json.loads(response.read()))
            done = False
            for line in response:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    done = True
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise StreamError(event["error"].get("code"), event)
                yield event
            if not done:
                raise StreamError(None, "the stream ended without [DONE]")
        finally:
            connection.close()


def expect_no_report(name, log):
    """Fails if a sanitizer reported anything in `log`: a program that is started again hides it otherwise."""
    found = re.search(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|: runtime error: ", log)
    if found:
        begin = max(0, found.start() - 1000)
        raise AssertionError(f"a sanitizer reported in the log of {name}:\n{log[begin:begin + 12000]}")


def run_prism(*arguments):
    """`prism ARGUMENTS` until it ends by itself; a subprocess.CompletedProcess of text."""
    result = subprocess.run([BIN / "prism", *map(str, arguments)], capture_output=True, text=True, timeout=60 * SLOW)
    expect_no_report(f"prism {arguments[0]}", result.stderr)
    return result


def free_port():
    """A port of loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class StreamError(Exception):
    """A stream that ended with an error; args are the code and the body."""


def picture(data, kind="png"):
    """A part of a message: these bytes as a picture of that kind."""
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


def video_part(frames, kind="png"):
    """A part of a message: these picture files as the frames of a clip."""
    data = ",".join(base64.b64encode(frame).decode() for frame in frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/{kind};base64,{data}"}}


def rgb_png(rows, level=-1):
    """A PNG of these rows of RGB bytes, compressed at that level of zlib."""
    return _png(len(rows[0]) // 3, len(rows), 2, zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), level))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, color_type, pixels):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png(width, height, rows=None):
    """A grey PNG that says it is width x height; with no `rows` it has far fewer pixels than it says."""
    return _png(width, height, 0, zlib.compress((b"\0" + b"\x80" * width) * rows if rows else b"\0" * 64))


def image_part(name):
    """tests/oracle/images/NAME."""
    return picture((ORACLE / "images" / name).read_bytes(), "png" if name.endswith(".png") else "jpeg")


def text_part(text):
    return {"type": "text", "text": text}
