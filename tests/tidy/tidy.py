#!/usr/bin/env python3
"""tidy.py ROOT [--compiler CXX]: holds the tree to docs/architecture.md.

Fails on an include against the arrows, a source or header that no target names, a header that does
not compile alone, and a test without an expectation. Prints every finding with its place.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# folder -> folders of ours it may include, besides itself. The longest matching folder counts.
BASE = ["common/base"]
TENSOR = BASE + ["common/tensor"]
KERNELS = ["kernels/device", "kernels/ops", "kernels/comm", "kernels/layers"]
RPC = ["common/wire", "common/rpc", "common/metrics"]
ARROWS = {
    "common/base": [],
    "common/tensor": BASE,
    "common/checkpoint": TENSOR,
    "common/text": BASE,
    "common/metrics": BASE,
    "common/wire": TENSOR + ["protos"],
    "common/wire/grammar_codec": BASE + ["common/text/grammar", "common/wire", "protos"],
    "common/rpc": BASE + ["common/metrics", "common/wire", "protos"],
    "kernels/device": TENSOR,
    "kernels/ops": TENSOR + ["kernels/device"],
    "kernels/comm": TENSOR + ["kernels/device"],
    "kernels/layers": TENSOR + KERNELS + ["common/checkpoint"],
    "kernels/cpu": TENSOR + KERNELS,
    "kernels/cuda": TENSOR + KERNELS,
    "kernels/backends": BASE + ["kernels/comm", "kernels/device", "kernels/cpu", "kernels/cuda"],
    "services/vision_encoder/image": TENSOR + ["common/checkpoint/model_config.h"],
    "services/vision_encoder/model": TENSOR + ["common/checkpoint"] + KERNELS,
    "services/vision_encoder": TENSOR + ["common/checkpoint", "common/text", "protos"] + RPC + KERNELS,
    "services/decoder/model": TENSOR + ["common/checkpoint"] + KERNELS,
    "services/decoder/kv": BASE,
    "services/decoder/kv/kv_store": TENSOR + KERNELS,
    "services/decoder/sched": BASE + ["services/decoder/kv"],
    "services/decoder": TENSOR + ["common/checkpoint", "common/text", "protos"] + RPC + KERNELS,
    "services/router": BASE + ["common/text", "common/checkpoint/model_config.h", "protos"] + RPC,
    "services/gateway": BASE + ["common/text", "common/checkpoint/model_config.h", "protos"] + RPC,
    "services/cli": BASE + ["common/text", "common/checkpoint/model_config.h", "protos"] + RPC,
    # The parts of services that neither wait nor call.
    "services/sim": TENSOR + [
        "common/metrics",
        "common/rpc/flags.h",
        "common/text/stop_matcher.h",
        "services/decoder/kv",
        "services/decoder/sched",
        "services/router/admission.h",
        "services/router/attempt_state.h",
        "services/router/event_log.h",
        "services/router/fair_queue.h",
        "services/router/generation_journal.h",
        "services/router/hedge.h",
        "services/router/placement.h",
        "services/router/prefix_map.h",
        "services/router/tenant_limits.h",
        "services/vision_encoder/embedding_store.h",
    ],
}
# main.cc alone makes backends.
MAIN_EXTRA = ["kernels/backends"]
# Third-party headers that stay in one place.
ONLY_IN = {
    r"spdlog/": ["common/base/log.cc"],
    r"openssl/": ["common/base/hash.cc"],
    r"CLI/": ["common/rpc/flags.cc"],
    r"cuda_runtime": ["kernels/cuda/"],
    r"grpc": ["common/wire/", "common/rpc/", "services/", "tests/"],
    r"boost/": ["services/gateway/", "services/cli/", "tests/services/"],
}
OURS = ("common/", "kernels/", "services/", "protos/", "prism/v1/", "google/rpc/", "tests/")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def sources(root, *tops):
    for top in tops:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".cc", ".h") and "build" not in path.relative_to(root).parts:
                yield path


def rule_for(name):
    stem = name.rsplit(".", 1)[0]
    best = max((f for f in ARROWS if stem == f or name.startswith(f + "/")), key=len, default=None)
    return best


def allowed(including, included):
    folder = rule_for(including)
    if folder is None:
        return False
    if included.startswith(("prism/v1/", "google/rpc/")):
        included = "protos/" + included
    may = ARROWS[folder] + [folder]
    if folder == "services/decoder/kv/kv_store":
        may.append("services/decoder/kv")
    if including.endswith("/main.cc"):
        may = may + MAIN_EXTRA
    return any(included == m or included.startswith(m + "/") for m in may)


def check_arrows(root):
    for path in sources(root, "common", "kernels", "services"):
        name = str(path.relative_to(root))
        for bracket, included in INCLUDE.findall(path.read_text(errors="replace")):
            if included.startswith(OURS) and not allowed(name, included):
                yield f"{name}: may not include {included}"
            for pattern, places in ONLY_IN.items():
                if bracket == "<" or not included.startswith(OURS):
                    if re.match(pattern, included) and not any(name.startswith(p) for p in places):
                        yield f"{name}: {included} belongs in {', '.join(places)}"


def check_targets(root):
    """Every source, and every header but those of tests, is named by the CMake file of its folder (or one above)."""
    for path in sources(root, "common", "kernels", "services", "tests", "benchmarks"):
        if path.suffix == ".h" and path.relative_to(root).parts[0] in ("tests", "benchmarks"):
            continue
        folder, named = path.parent, False
        while not named and folder != root.parent:
            lists = folder / "CMakeLists.txt"
            if lists.exists():
                local = path.relative_to(folder)
                named = re.search(r"(?<![\w/.-])" + re.escape(str(local)) + r"(?![\w.])", lists.read_text()) is not None
            folder = folder.parent
        if not named:
            yield f"{path.relative_to(root)}: no target names it"


def body_from(text, begin):
    """The text from `begin`, just after an opening brace, to the brace that closes it."""
    depth, end = 1, begin
    while depth and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[begin:end]


EXPECTS = re.compile(r"\b(EXPECT_|ASSERT_|FAIL\(|ADD_FAILURE)")
TESTS = re.compile(r"^(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(([^)]*)\)\s*\{", re.M)
# A function, method or lambda with a body, or a type.
DEFINITION = re.compile(r"\b(?:(?:class|struct)\s+(\w+)[^;{}()]*|(\w+)\s*(?:=\s*\[[^\]]*\]\s*)?\([^;{}]*\)[^;{}()]*)\{")


def expecting_names(text):
    """Names of the file's own functions and types that expect something, by themselves or through each other."""
    found = {}
    for match in DEFINITION.finditer(text):
        name = match.group(1) or match.group(2)
        if name not in ("if", "for", "while", "switch", "TEST", "TEST_F", "TEST_P"):
            found[name] = found.get(name, "") + body_from(text, match.end())
    names = {name for name, body in found.items() if EXPECTS.search(body)}
    while True:
        uses = re.compile(r"\b(" + "|".join(map(re.escape, sorted(names))) + r")\b") if names else None
        more = {name for name, body in found.items() if name not in names and uses and uses.search(body)}
        if not more:
            return uses
        names |= more


def without_literals(text):
    """The text with empty strings and characters, so that a brace is a brace."""
    text = re.sub(r'R"(\w*)\((.*?)\)\1"', lambda m: '""' + "\n" * m.group(0).count("\n"), text, flags=re.S)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    text = re.sub(r"'(?:\\.|[^'\\\n])'", "' '", text)
    return re.sub(r"//[^\n]*", "", text)


def check_expectations(root):
    shared = "\n".join(p.read_text(errors="replace") for p in sources(root, "tests") if p.suffix == ".h")
    for path in sources(root, "tests"):
        if not path.name.endswith("_test.cc"):
            continue
        text = without_literals(path.read_text(errors="replace"))
        uses, found = expecting_names(text + shared), False
        for match in TESTS.finditer(text):
            found = True
            body = body_from(text, match.end())
            if not EXPECTS.search(body) and not (uses and uses.search(body)):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{path.relative_to(root)}:{line}: {match.group(1)} expects nothing"
        if not found:
            yield f"{path.relative_to(root)}: a test file without a test"


def check_headers(root, compiler, flags, left_out):
    """A header is proven to compile alone by the .cc of its name including it first; others are compiled."""
    alone = []
    for path in sources(root, "common", "kernels", "services"):
        if path.suffix != ".h":
            continue
        source = path.with_suffix(".cc")
        name = str(path.relative_to(root))
        if name.startswith(tuple(left_out)):
            continue
        if source.exists():
            first = next((i for _, i in INCLUDE.findall(source.read_text(errors="replace"))), None)
            if first != name:
                yield f"{source.relative_to(root)}: must include {name} first"
        else:
            alone.append(name)

    def compile_alone(name):
        with tempfile.NamedTemporaryFile("w", suffix=".cc") as unit:
            unit.write(f'#include "{name}"\n')
            unit.flush()
            result = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", "-I", str(root), *flags, unit.name],
                                    capture_output=True, text=True)
            return f"{name}: does not compile alone\n{result.stderr[:600]}" if result.returncode else None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compile_alone, alone))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--compiler", default="", help="compile headers with this; empty: leave that check out")
    parser.add_argument("--flag", action="append", default=[], help="another compiler flag, e.g. --flag=-Ibuild/protos")
    parser.add_argument("--leave-out", action="append", default=[], metavar="FOLDER/",
                        help="headers that need what is not on this machine")
    args = parser.parse_args()
    root = args.root.resolve()
    findings = [*check_arrows(root), *check_targets(root), *check_expectations(root)]
    if args.compiler:
        findings += check_headers(root, args.compiler, args.flag, args.leave_out)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
