#!/bin/sh
# Makes .venv out of the lock: python3 -m venv -> the pinned uv -> exactly requirements.lock.
# Started by make in the checkout's root; with the argument `uv` it stops after uv. Needs nothing but a Python with its venv module.
set -eu

fail() {
    printf '\n%s\n\n' "$*" >&2
    exit 1
}

recent_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        recent_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of version 3.11 or newer."
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if recent_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "eventflow needs Python 3.11 or newer and finds none. Where it has another name: make PYTHON=/path/to/python"
}

install_uv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
"This Python cannot make virtual environments: $python
Debian and Ubuntu keep that in a package of its own. As root:

    apt-get install python3-venv"
    "$python" -m venv --clear .bootstrap
    .bootstrap/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --only-binary :all: -r tools/requirements-uv.txt
    cp tools/requirements-uv.txt .bootstrap/installed
}

# The value of a setting in pip's files and variables; `pip config get` does not see all of them.
told_to_pip() {
    .bootstrap/bin/python -m pip config list 2>/dev/null |
        sed -nE "s/^(:env:|global|install)\.$1='(.*)'\$/\2/p" | head -n 1
}

# uv does not read what pip was told about this machine: its index, its certificates.
adopt_settings_of_pip() {
    index=$(told_to_pip index-url)
    [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    certificates=$(told_to_pip cert)
    [ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"
    # `su` and `runuser` may leave us the home of somebody else.
    cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/uv}
    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        export UV_NO_CACHE=1
    fi
}

python=$(find_python)
if ! cmp -s tools/requirements-uv.txt .bootstrap/installed; then
    printf 'installing uv with %s\n' "$python"
    install_uv
fi
[ "${1:-}" != uv ] || exit 0
adopt_settings_of_pip
uv=.bootstrap/bin/uv
if ! recent_enough .venv/bin/python; then
    "$uv" venv --quiet --clear --no-python-downloads --python "$python" .venv
fi
printf 'installing requirements.lock into .venv\n'
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
# The build backend is in the lock as well, so that nothing is installed without a hash.
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
pwd -P >.venv/installed
