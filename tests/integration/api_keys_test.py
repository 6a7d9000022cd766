#!/usr/bin/env python3
"""API keys through a whole cluster: nobody without one, each key's chats its tenant's, keys that change while it runs, and no
key in any log."""
import hashlib
import http.client
import json
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from cluster import BIN, SLOW, Cluster, run_prism

RICH, POOR, LATER = "key-rich-0a1b", "key-poor-2c3d", "key-later-4e5f"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def body(**fields):
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "temperature": 0, **fields}


class ApiKeysTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="prism_keys_")
        cls.file = Path(cls.folder.name, "tenants.json")
        cls.write({"rich": [RICH], "poor": [POOR]})
        # One file for the gateway's keys and the router's limits.
        cls.cluster = Cluster("moe-micro", extra=["--api-keys", str(cls.file), "--limits", str(cls.file)])

    @classmethod
    def tearDownClass(cls):
        logs = Path(cls.cluster.log_dir.name)
        try:
            cls.cluster.stop()
            for log in logs.iterdir():
                text = log.read_text(errors="replace")
                for key in (RICH, POOR, LATER):
                    assert key not in text, f"{log.name} has a key"
        finally:
            cls.cluster.log_dir.cleanup()
            cls.folder.cleanup()

    @classmethod
    def write(cls, keys):
        tenants = {name: {"api_key_sha256": [hashlib.sha256(key.encode()).hexdigest() for key in held]} for name, held in keys.items()}
        tenants["poor"]["tokens_per_minute"] = 1
        new = cls.file.with_suffix(".new")
        new.write_text(json.dumps({"tenants": tenants}))
        os.replace(new, cls.file)

    def chat(self, headers, **fields):
        return self.cluster.request("POST", "/v1/chat/completions", body(**fields), headers=headers)

    def test_without_a_key_nobody_is_answered_but_probes(self):
        for headers in ({}, bearer("key-wrong"), bearer(""), {"Authorization": f"Basic {RICH}"}, {"Authorization": RICH}):
            status, answer = self.chat(headers)
            self.assertEqual(status, 401, answer)
            self.assertEqual(answer["error"]["code"], "invalid_api_key")
            self.assertNotIn("key-", json.dumps(answer))
            self.assertEqual(self.cluster.request("GET", "/v1/models", headers=headers)[0], 401)
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.cluster.request("GET", path)[0], 200)
        gateway = next(p for p in json.loads(self.cluster.state_file.read_text())["programs"] if p["name"] == "gateway")
        connection = http.client.HTTPConnection("127.0.0.1", gateway["metrics_port"], timeout=30 * SLOW)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        self.assertIn("prism_gateway_api_keys ", text)
        self.assertIn('status="401"', text)

    def test_a_keys_chats_are_its_tenants_whatever_user_says(self):
        statuses = [self.chat(bearer(POOR), user=user)[0] for user in ("poor", "rich", "somebody", "")]
        self.assertEqual(statuses, [200, 429, 429, 429], "a minute's one token is gone, whoever it says it is")
        for _ in range(3):
            self.assertEqual(self.chat(bearer(RICH), user="poor")[0], 200, "nobody else pays for it")

    def test_keys_change_while_it_runs(self):
        self.assertEqual(self.chat(bearer(LATER))[0], 401)
        try:
            self.write({"rich": [RICH, LATER], "poor": [POOR]})
            deadline = time.monotonic() + 60 * SLOW
            while self.chat(bearer(LATER))[0] != 200 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(self.chat(bearer(LATER))[0], 200)
            self.assertEqual(self.chat(bearer(RICH))[0], 200)
        finally:
            self.write({"rich": [RICH], "poor": [POOR]})

    def test_the_command_line_takes_its_key_from_the_environment(self):
        url = f"http://127.0.0.1:{self.cluster.port}"
        refused = run_prism("ask", "--url", url, "--max-tokens", 2, "Hello")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("API key", refused.stderr)
        asked = subprocess.run([BIN / "prism", "ask", "--url", url, "--max-tokens", "2", "Hello"], capture_output=True, text=True,
                               timeout=60 * SLOW, env=dict(os.environ, PRISM_API_KEY=RICH))
        self.assertEqual(asked.returncode, 0, asked.stderr)
        status = run_prism("status", "--url", url, "--api-key", RICH)
        self.assertIn("context", status.stdout)


class ApiKeyStartTest(unittest.TestCase):
    def start(self, *arguments):
        return subprocess.run([BIN / "prism-gateway", "--port", "0", "--metrics-port", "0", *arguments], capture_output=True, text=True,
                              timeout=60 * SLOW)

    def test_half_of_the_flags_is_a_mistake(self):
        for arguments, words in ((["--require-api-key"], "--require-api-key needs --api-keys"),
                                 (["--api-keys", "x.json"], "--api-keys needs --require-api-key"),
                                 (["--require-api-key", "--api-keys", "/nonexistent/x.json"], "cannot read /nonexistent/x.json")):
            result = self.start(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main()
