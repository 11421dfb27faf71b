#!/usr/bin/env bash
# Runs tests with the oldest versions that pyproject.toml admits, or with the newest of the day:
#     tests/versions.sh oldest|newest [arguments of pytest]
# VENV is the environment, made or changed; PYTHON, PIP_ARGS as in the Makefile; TORCH a version of torch in place of
# the oldest or newest. The exit code is 75 if the package index has no such versions, or none for this Python.
set -euo pipefail
cd "$(dirname "$0")/.."
age=$1
shift
venv=${VENV:-.venv-test-$age}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limits=$work/limits.txt
[ "$age" = newest ] || cp constraints-oldest.txt "$limits"
touch "$limits"
[ -z "${TORCH:-}" ] || sed -i '/^torch==/d; /^sympy==/d' "$limits"  # torch names the sympy that it takes

echo "Installing the $age versions into $venv: several gigabytes where torch has no CPU build ..."
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# No other project is built here, but for rouge-score, which has no wheel.
# shellcheck disable=SC2086 -- PIP_ARGS is a list of options
install() {
  PYTHONWARNINGS=ignore "$venv/bin/python" -m pip --disable-pip-version-check install \
    --only-binary :all: --no-binary rouge-score --upgrade --upgrade-strategy eager ${PIP_ARGS:-} "$@"
}
if ! install -c "$limits" ${TORCH:+"torch==$TORCH"} -e '.[demo,test]' >"$work/log" 2>&1; then
  # A version that is not to be had is no fault of this project; versions that contradict each other are.
  if install --dry-run --no-deps -r "$limits" >"$work/each" 2>&1; then tail -40 "$work/log"; exit 1; fi
  echo "the $age versions are not tested, because one cannot be had here: $(grep ERROR "$work/each" | tail -1)"
  exit 75
fi
"$venv/bin/python" -m pytest "$@"
