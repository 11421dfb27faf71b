#!/usr/bin/env bash
# Builds the wheel, installs it in a clean environment outside the tree, and uses it from there: what works only because
# the checkout is near fails here. The source distribution is held against its own tests. Run by `make wheel-test`,
# which sets BIN (an environment with `build`).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$BIN/python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
if grep -nE "is absent from the|warning: no (files|previously)" "$work/build.log"; then echo "setuptools warns"; exit 1; fi
"$BIN/python" -m twine check --strict "$work"/dist/*
# The wheel holds every file of the package, and the source distribution what its tests need.
(cd "$root" && git ls-files stella_mteb configs tasks) | sed -E 's#^(configs|tasks)/#stella_mteb/\1/#' | sort >"$work/tracked"
"$BIN/python" -m zipfile -l "$work"/dist/*.whl | awk '/^stella_mteb\// {print $1}' | sort >"$work/shipped"
diff "$work/tracked" "$work/shipped"
(cd "$root" && git ls-files | grep -v '^\.gitignore$') | sort >"$work/tracked"
tar -tzf "$work"/dist/*.tar.gz | sed 's#^[^/]*/##' | sort >"$work/shipped"
comm -23 "$work/tracked" "$work/shipped" | grep . && { echo "these are not in the source distribution"; exit 1; }
mkdir "$work/sdist" && tar -xzf "$work"/dist/*.tar.gz -C "$work/sdist" --strip-components 1
"$BIN/python" -m venv "$work/venv"
# shellcheck disable=SC2086 -- PIP_ARGS is a list of options
"$work/venv/bin/python" -m pip install --quiet ${PIP_ARGS:-} -c "$root/constraints.txt" "$(echo "$work"/dist/*.whl)[demo]"

cd "$work"
export HF_HUB_OFFLINE=1
"$work/venv/bin/stella-mteb" demo --help >/dev/null
"$work/venv/bin/stella-mteb" models
"$work/venv/bin/stella-mteb" tasks >/dev/null
printf '%s\n' \
    '{"a": "A man rides a horse.", "b": "A person is riding a horse.", "score": 5}' \
    '{"a": "A dog runs on the beach.", "b": "A cat sleeps on the sofa.", "score": 1}' \
    '{"a": "Two girls sing.", "b": "A woman peels a potato.", "score": 0}' >pairs.jsonl
printf '%s\n' 'name: WheelSTS' 'type: STS' 'data: pairs.jsonl' \
    'columns: {sentence1: a, sentence2: b, score: score}' >task.yaml
"$work/venv/bin/stella-mteb" run -m all_minilm_l6_v2 -t task.yaml --output out --offline
test -n "$(find out -name WheelSTS.json)"
# Nothing of ours may lie at the top of site-packages but the package itself.
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata

top = {path.parts[0] for path in importlib.metadata.files("stella-mteb")}
extra = {name for name in top if name not in {"stella_mteb", ".."} and not name.endswith(".dist-info")}
assert not extra, extra
PYTHON
# The source distribution, installed as its tests ask for, runs them.
# shellcheck disable=SC2086
PYTHONWARNINGS=ignore "$work/venv/bin/python" -m pip install --quiet ${PIP_ARGS:-} -c "$root/constraints.txt" -e "$work/sdist[test]"
(cd "$work/sdist" && "$work/venv/bin/python" -m pytest tests/promises/test_rooms.py tests/files)
echo "wheel: ok"
