"""random_answers_test.py PROGRAM: has a validator library judge what PROGRAM (random_answers) lets a
sampler answer in the form of random schemas."""
import json
import subprocess
import sys

try:
    from jsonschema import Draft202012Validator
except ImportError:
    print("skipped: Python's jsonschema (4 or later) is not installed")
    sys.exit(77)

WANTED = 1000


def main():
    lines = subprocess.run([sys.argv[1], str(WANTED)], check=True, stdout=subprocess.PIPE).stdout.decode().rstrip("\n").split("\n")
    wrong, seen = 0, set()
    for line in lines:
        case = json.loads(line)
        seen.add(case["answer"])
        try:
            errors = list(Draft202012Validator(case["schema"]).iter_errors(json.loads(case["answer"])))
        except json.JSONDecodeError as error:
            errors = [error]
        if errors:
            wrong += 1
            print("schema", json.dumps(case["schema"]), "answer", case["answer"], "error", errors[0], sep="\n  ")
    print(f"{len(lines)} answers ({len(seen)} different), {wrong} that the validator refuses")
    return 1 if wrong or len(lines) < WANTED or len(seen) < WANTED // 2 else 0


if __name__ == "__main__":
    sys.exit(main())
