#!/usr/bin/env python3
"""tidy.py must see what it is for: each kind of offence, in a tree made for it."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TIDY = Path(__file__).with_name("tidy.py")


class TidyTest(unittest.TestCase):
    def run_on(self, files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            result = subprocess.run([sys.executable, TIDY, folder, "--compiler", "c++"], capture_output=True, text=True)
            return result.returncode, result.stdout

    def test_a_clean_tree_passes(self):
        code, output = self.run_on({"common/base/a.h": "#pragma once\n", "common/base/CMakeLists.txt": "a.h\n"})
        self.assertEqual((code, output), (0, ""))

    def test_an_include_against_the_arrows_is_found(self):
        code, output = self.run_on({
            "common/base/a.h": '#include "common/tensor/t.h"\n', "common/base/CMakeLists.txt": "a.h\n",
            "common/tensor/t.h": "", "common/tensor/CMakeLists.txt": "t.h\n"})
        self.assertEqual(code, 1)
        self.assertIn("common/base/a.h: may not include common/tensor/t.h", output)

    def test_services_do_not_include_each_other(self):
        code, output = self.run_on({
            "services/router/a.cc": '#include "services/decoder/b.h"\n', "services/router/CMakeLists.txt": "a.cc\n",
            "services/decoder/b.h": "", "services/decoder/CMakeLists.txt": "b.h\n"})
        self.assertEqual(code, 1)
        self.assertIn("services/router/a.cc: may not include services/decoder/b.h", output)

    def test_only_main_makes_a_backend(self):
        files = {"kernels/backends/make.h": "", "kernels/backends/CMakeLists.txt": "make.h\n",
                 "services/decoder/CMakeLists.txt": "main.cc other.cc\n",
                 "services/decoder/main.cc": '#include "kernels/backends/make.h"\n', "services/decoder/other.cc": ""}
        self.assertEqual(self.run_on(files)[0], 0)
        files["services/decoder/other.cc"] = '#include "kernels/backends/make.h"\n'
        self.assertEqual(self.run_on(files)[0], 1)

    def test_a_source_without_a_target_is_found(self):
        code, output = self.run_on({"common/base/a.cc": "", "common/base/CMakeLists.txt": "aa.cc\n"})
        self.assertEqual(code, 1)
        self.assertIn("common/base/a.cc: no target names it", output)

    def test_a_test_without_an_expectation_is_found(self):
        code, output = self.run_on({
            "tests/a_test.cc": "TEST(A, Runs) { int x = 1; (void)x; }\n", "tests/CMakeLists.txt": "a_test.cc\n"})
        self.assertEqual(code, 1)
        self.assertIn("A, Runs expects nothing", output)

    def test_an_expectation_in_a_function_of_the_file_counts(self):
        text = """
        void Same(int a) { EXPECT_EQ(a, 1); }
        void Outer() {
          Same(1);
        }
        TEST(A, Runs) { Outer(); }
        """.replace("\n        ", "\n")
        code, output = self.run_on({"tests/a_test.cc": text, "tests/CMakeLists.txt": "a_test.cc\n"})
        self.assertEqual((code, output), (0, ""))

    def test_a_header_that_does_not_compile_alone_is_found(self):
        code, output = self.run_on({
            "common/base/a.h": "#pragma once\nstd::string f();\n", "common/base/CMakeLists.txt": "a.h\n"})
        self.assertEqual(code, 1)
        self.assertIn("common/base/a.h: does not compile alone", output)


if __name__ == "__main__":
    unittest.main()
