# Makes a virtual environment from a lock file. Sourced by ./start and ./test.
#
# Rule 1: nothing is needed but a Python with venv and pip. It is plain sh.
#
# Rule 2: only what the lock file names is installed, the build backend
# included, and each file's hash is checked. Where packages come from is the
# business of pip's own configuration, which is left alone.
#
# Rule 3: an environment is either whole or made anew. Its stamp, written last,
# says what it was made from; anything else in its place is removed.

# A package on PYTHONPATH would count as installed here and be missing elsewhere.
unset PYTHONPATH PYTHONHOME

say() {
    printf '%s\n' "$*" >&2
}

# usable PYTHON OLDEST NEWEST: succeeds if PYTHON is of a version from 3.OLDEST to 3.NEWEST.
usable() {
    "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] <= (3, $3))" 2>/dev/null
}

# find_python: sets $python, or says what to install and ends the script.
find_python() {
    without_venv=
    if [ -n "${PYTHON:-}" ]; then
        # Asked for by name: newer than the lock file was made for is the caller's own choice.
        usable "$PYTHON" 11 99 || { say "PYTHON=$PYTHON is not a Python 3.11 or newer."; exit 1; }
        candidates=$PYTHON newest=99
    else
        candidates="python3 python3.14 python3.13 python3.12 python3.11 python" newest=14
    fi
    for python in $candidates; do
        usable "$python" 11 "$newest" || continue
        # Debian ships Python without ensurepip, and venv then fails halfway.
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        without_venv=${without_venv:-$python}
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$without_venv is Python $version, but its venv module cannot make an environment with pip."
        say "On Debian and Ubuntu: apt install python$version-venv (as root), then run this again."
    else
        say "ai-mux needs Python 3.11, 3.12, 3.13 or 3.14 with venv and pip; none was found on PATH."
        say "If one is elsewhere: PYTHON=/path/to/python $0"
    fi
    exit 1
}

# install ARGUMENT…: pip, in $environment.
install() {
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-user "$@"
}

# stamped NAME VALUE: succeeds if the environment's stamp NAME holds VALUE.
stamped() {
    [ "$(cat "$environment/made-from-$1" 2>/dev/null)" = "$2" ]
}

# make_environment DIRECTORY LOCK HOW: HOW is "editable" (src/ is read where it is), "copy", or
# "alone" (without ai-mux itself). A failure is returned at each step by name, because the shell's -e
# is off for callers that ask with "||" or "if", and a stamp would be written all the same.
make_environment() {
    environment=$1
    find_python
    packages=$({ pwd; "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; cat "$2" "scripts/environment.sh"; } | cksum)
    if ! stamped packages "$packages" || ! "$environment/bin/python" -c '' 2>/dev/null; then
        say "Installing into $environment from $2 (a minute the first time) …"
        rm -rf "$environment"
        "$python" -m venv "$environment" || return 1
        install --require-hashes -r "$2" || return 1
        echo "$packages" >"$environment/made-from-packages"
    fi

    if [ "$3" = alone ]; then
        return
    elif [ "$3" = editable ]; then
        project=$(cksum <pyproject.toml)
        set -- --editable .
    else
        project=$(find pyproject.toml src -type f ! -name '*.pyc' -exec cksum {} + | sort | cksum)
        set -- .
    fi
    if ! stamped project "$project"; then
        install --no-build-isolation --no-deps --force-reinstall "$@" || return 1
        echo "$project" >"$environment/made-from-project"
    fi
}
