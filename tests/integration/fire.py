"""Many resumable streams on a cluster while its parts are killed, stopped and drained; each answer judged.

under_fire_test.py runs a reduced form, benchmarks/serving/under_fire.py the whole one.
"""
import datetime
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from cluster import SLOW, StreamError, image_part, text_part

PICTURES = ["astronaut.jpg", "coffee.jpg", "rocket.jpg", "tiny.png", "wide_gray.png", "chelsea.png"]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
          "required": ["name", "count"], "additionalProperties": False}


def question(i, max_tokens, schema=False):
    """The i-th request: pictures in half, two choices in some, penalties in some, a JSON schema in a quarter
    where `schema`; half of the rest sampled."""
    content = [text_part(f"Question {i}: " + "count the stars, " * (i % 7) + "and name them.")]
    if i % 2 == 0:
        content.insert(0, image_part(PICTURES[i // 2 % len(PICTURES)]))
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "ignore_eos": True,
               "return_token_ids": True, "temperature": 0 if i % 4 < 2 else 0.9, "seed": 1000 + i, "top_p": 0.95,
               "stream": True, "resumable": True}
    if i % 5 == 1:
        request["n"] = 2
    if i % 7 == 3:
        request.update(frequency_penalty=0.5, presence_penalty=0.3, repetition_penalty=1.1)
    if i % 9 == 4:
        request["logprobs"] = True
    if schema and i % 4 == 3:
        request.pop("ignore_eos")
        request["response_format"] = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
    return request


class Stream:
    """One chat, read to its end over any number of connections; keeps what was heard of each choice."""

    def __init__(self, port, request, drops=()):
        self.port, self.request = port, request
        self.drops = list(drops)  # numbers of events after which the connection is dropped
        self.generation = None
        self.last = -1            # number of the last event
        self.ids, self.text, self.logprobs, self.finish = {}, {}, {}, {}
        self.heard = []           # times of chunks
        self.prompt_tokens = 0
        self.reconnects = 0
        self.refusals = 0         # before it was taken in
        self.error = None
        self.done = False

    def answer(self):
        return self.ids, self.text, self.logprobs, self.finish

    def run(self):
        try:
            while self.last < 0 and not self.done:
                self._read("POST", "/v1/chat/completions", json.dumps(self.request))
            while not self.done:
                self.reconnects += 1
                self._read("GET", f"/v1/generations/{self.generation}/events", None)
        except Exception as error:  # of every kind: it is this stream's outcome
            self.error = error

    def _read(self, method, path, body):
        headers = {"Content-Type": "application/json"}
        if self.last >= 0:
            headers["Last-Event-ID"] = str(self.last)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120 * SLOW)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status == 429 and self.last < 0:
                self.refusals += 1
                time.sleep(int(response.getheader("retry-after-ms", "1000")) / 1000)
                return
            if response.status != 200:
                raise StreamError(response.status, response.read().decode())
            number = None
            for line in response:
                line = line.strip()
                if line.startswith(b"id: "):
                    number = int(line[4:])
                elif line == b"data: [DONE]":
                    self.done = True
                elif line.startswith(b"data: "):
                    self._chunk(json.loads(line[6:]), number)
                    number = None
                    if self.drops and self.last >= self.drops[0]:
                        self.drops.pop(0)
                        return
            if not self.done:
                raise StreamError(None, "the stream ended without [DONE]")
        finally:
            connection.close()

    def _chunk(self, chunk, number):
        if "error" in chunk:
            raise StreamError(chunk["error"].get("code"), chunk)
        self.heard.append(time.monotonic())
        if "prism" in chunk and "generation_id" in chunk["prism"]:
            self.generation = chunk["prism"]["generation_id"]
        self.prompt_tokens = len(chunk.get("prompt_token_ids") or []) or self.prompt_tokens
        if number is not None:
            # Every event of ours makes a chunk but the very last one.
            if number != self.last + 1:
                raise StreamError(None, f"event {number} came after {self.last}: a gap or a repeat")
            self.last = number
        for choice in chunk["choices"]:
            i = choice["index"]
            self.ids.setdefault(i, []).extend(choice.get("token_ids") or [])
            self.text[i] = self.text.get(i, "") + (choice["delta"].get("content") or "")
            if choice.get("logprobs"):
                self.logprobs.setdefault(i, []).extend(t["logprob"] for t in choice["logprobs"]["content"])
            if choice.get("finish_reason"):
                self.finish[i] = choice["finish_reason"]


class Redis:
    """A redis-server on a socket of its own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="prism_redis_")
        self.path = str(Path(self.folder, "socket"))
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no",
             "--dir", self.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 10 * SLOW
        while not os.path.exists(self.path) and time.monotonic() < give_up:
            time.sleep(0.01)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Fire:
    """Runs questions on a cluster, each alone enough to be undisturbed or all under fire."""

    def __init__(self, cluster, streams, max_tokens, schema=False):
        self.cluster = cluster
        self.events = []  # of each answer, undisturbed
        self.questions = [question(i, max_tokens, schema) for i in range(streams)]
        self.faults = []

    def start(self, drops, **fields):
        streams = [Stream(self.cluster.port, dict(request, **fields), drops(i))
                   for i, request in enumerate(self.questions)]
        threads = [threading.Thread(target=stream.run, daemon=True) for stream in streams]
        for thread in threads:
            thread.start()
        return streams, threads

    def undisturbed(self):
        """Every answer, computed without a fault or a reconnect, past the result cache."""
        streams, threads = self.start(lambda i: (), result_cache=False)
        for thread in threads:
            thread.join()
        for stream in streams:
            if stream.error is not None:
                raise stream.error
        self.events = [stream.last + 1 for stream in streams]
        return [stream.answer() for stream in streams]

    def under_fire(self, plan, timeout):
        """All streams at once, after undisturbed(). `plan`: [(share of all events at which it strikes, name, function)],
        ascending. The streams, all ended; each has reconnected once, somewhere in its middle."""
        dice = random.Random(7)
        # A tenant of its own, so that the undisturbed run's embeddings and results are no help.
        streams, threads = self.start(lambda i: (dice.randrange(1, self.events[i] - 1),), cache_salt="fire")
        total = sum(self.events)
        plan, deadline = list(plan), time.monotonic() + timeout
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            said = sum(stream.last for stream in streams)
            if plan and said >= plan[0][0] * total:
                _, name, strike = plan.pop(0)
                running = {i: streams[i].last for i, thread in enumerate(threads) if thread.is_alive()}
                self.faults.append(Fault(name, time.monotonic(), running, self.moves()))
                strike()
            time.sleep(0.005)
        for _, name, _ in plan:
            raise AssertionError(f"all streams had ended before {name!r} struck")
        if any(thread.is_alive() for thread in threads):
            raise AssertionError(f"{sum(t.is_alive() for t in threads)} streams hang after {timeout} s")
        return streams

    def moves(self):
        """(generation, Unix time) of each time that one went on from another decoder so far, in order."""
        log = Path(self.cluster.log_dir.name, "router.log").read_text(errors="replace")
        lines = [line for line in log.splitlines() if '"another decoder goes on"' in line]
        return [(json.loads(line)["generation"], unix_time(json.loads(line)["time"])) for line in lines]

    def processes(self, program):
        """The process ids of the cluster's `program`, ascending."""
        return sorted(pid for pid, name in self.cluster.children().items() if name == program)


def unix_time(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Fault:
    def __init__(self, name, struck, running, moves_before):
        self.name, self.struck, self.struck_unix = name, struck, time.time()
        self.running = running            # stream -> number of its last event then
        self.moves_before = moves_before  # as Fire.moves()

    def silences(self, streams, among=None):
        """Seconds from the fault to the next chunk of each stream that ran then and had begun, ascending; of those
        whose generations are `among` where that is given."""
        gaps = []
        for i in self.running:
            stream = streams[i]
            later = [t for t in stream.heard if t >= self.struck]
            chosen = among is None or stream.generation in among
            if chosen and later and stream.heard[0] < self.struck:
                gaps.append(later[0] - self.struck)
        return sorted(gaps)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def stop_for(pid, seconds):
    """SIGSTOP now, SIGCONT after `seconds`; the timer, to be joined."""
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(seconds, lambda: os.kill(pid, signal.SIGCONT))
    timer.start()
    return timer


def drain(pid):
    os.kill(pid, signal.SIGTERM)
