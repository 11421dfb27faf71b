#!/usr/bin/env bash
# Runs tests with the oldest versions that pyproject.toml admits, or with the newest of the day:
#     tests/versions.sh oldest|newest [arguments of pytest]
# VENV is the environment, made or changed; PYTHON, PIP_ARGS as in the Makefile; TORCH a version of torch in place of
# the oldest or newest. The exit code is 75 if the package index has no such versions, or none for this Python, or
# does not answer.
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
  # Versions that contradict each other are a fault of this project; a version that is missing here, or an index that
  # does not answer, is not. pip also reports a conflict if the index lacks a pinned version, so each is looked for.
  if grep -qE "ResolutionImpossible|conflicting dependencies" "$work/log" &&
    install --dry-run --no-deps -r "$limits" >"$work/each" 2>&1; then
    tail -40 "$work/log"
    exit 1
  fi
  echo "NOT TESTED: the $age versions cannot be installed here: $(cat "$work/log" "$work/each" 2>/dev/null | grep ERROR | tail -1)"
  exit 75
fi
"$venv/bin/python" -m pytest "$@"
