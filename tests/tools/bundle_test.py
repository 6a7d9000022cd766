#!/usr/bin/env python3
"""Tests of tools/bundle on a program of this build.

    tests/tools/bundle_test.py PROGRAM
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else None
CLEAN = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}


def bundle(*arguments):
    command = [str(ROOT / "tools/bundle"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=CLEAN)


class BundleTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="prism_bundle_")
        self.addCleanup(self.folder.cleanup)
        self.target = pathlib.Path(self.folder.name) / "bundle"

    def test_programs_run_on_the_bundled_libraries(self):
        result = bundle(PROGRAM, self.target)
        self.assertEqual(result.returncode, 0, result.stderr)
        program = self.target / "bin" / PROGRAM.name
        found = subprocess.run(["ldd", str(program)], capture_output=True, text=True, env=CLEAN).stdout
        libraries = {path.name for path in (self.target / "lib").iterdir()}
        self.assertIn("libstdc++.so.6", libraries)
        for line in found.splitlines():
            name = line.split()[0]
            if name in libraries:
                where = pathlib.Path(line.split("=>")[1].split()[0]).resolve()
                self.assertEqual(where.parent, (self.target / "lib").resolve(), line)
        help_text = subprocess.run([str(program), "--help"], capture_output=True, text=True, env=CLEAN)
        self.assertEqual(help_text.returncode, 0, help_text.stderr)

    def test_the_c_library_stays_the_machines(self):
        self.assertEqual(bundle(PROGRAM, self.target).returncode, 0)
        for path in (self.target / "lib").iterdir():
            self.assertNotRegex(path.name, r"^(ld-linux|libc\.so|libm\.so|libpthread|libcuda|libcudart|libnccl)")

    def test_a_bundle_is_replaced_and_nothing_else_is(self):
        self.assertEqual(bundle(PROGRAM, self.target).returncode, 0)
        (self.target / "bin/old").touch()
        self.assertEqual(bundle(PROGRAM, self.target).returncode, 0)
        self.assertFalse((self.target / "bin/old").exists())
        other = pathlib.Path(self.folder.name) / "other"
        other.mkdir()
        (other / "kept").touch()
        result = bundle(PROGRAM, other)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is there and no bundle", result.stderr)
        self.assertTrue((other / "kept").exists())

    def test_it_explains_itself_without_arguments(self):
        result = bundle()
        self.assertEqual(result.returncode, 2)
        self.assertIn("tools/bundle PROGRAM... DIR", result.stderr)


if __name__ == "__main__":
    if PROGRAM is None:
        sys.exit(__doc__)
    unittest.main()
