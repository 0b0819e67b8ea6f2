#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes .venv, or brings it up to date. The Makefile calls this before everything else, so the case in which there is
# nothing to do has to be quick: it hashes a few small files and ends.
#
#   tools/setup.sh                      set up what is missing or out of date
#   tools/setup.sh --missing-packages   print the Debian packages that are missing, and do nothing
#
# Environment: PYTHON=/path/to/python3.11 overrides the search for an interpreter.
#
# - Three steps (requirements, fleet_msgs, fleet), each with a stamp in .venv/stamps that holds a hash of what the step
#   depends on. A stamp is removed before its step and written after it, so an interrupted step is done again.
# - pip may take a half-installed distribution for an installed one. While the environment is being made for the first
#   time .venv/unfinished exists, and whoever finds it there starts afresh.
# - `fleet` is installed as an editable: the command, the nodes and the tests all run the checkout's own code, and
#   fleet/resources.py then takes configurations and models from the checkout too. Nothing can be stale, nothing is copied
#   twice, and a change to a source file needs no installation. A plain `pip install .` works as well and installs both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
python=$venv/bin/python
stamps=$venv/stamps

say() { printf '%s\n' "fleet: $*" >&2; }
fail() { say "$*"; exit 2; }

# Prints the first CPython 3.11 there is; names found on the way may be dead stubs of a version manager, so each is run.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
        [[ -z ${PYTHON:-} ]] || break
    done
    return 1
}

# Prints the Debian packages that set-up needs and that are missing. What is looked for is the thing itself, not the
# package: an interpreter or a compiler that came another way is as good.
missing_packages() {
    local interpreter
    command -v c++ >/dev/null || command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
    if interpreter=$(find_python); then
        "$interpreter" -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3.11-venv
        "$interpreter" -c 'import pathlib, sysconfig
raise SystemExit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || echo python3.11-dev
    else
        echo python3.11 python3.11-dev python3.11-venv
    fi
}

check_system() {
    local missing sudo='sudo '
    [[ $EUID -ne 0 ]] || sudo=
    [[ $(uname -sm) == "Linux x86_64" ]] || fail "the ROS 2 wheels are for Linux on x86-64 and this is $(uname -sm):" \
        "build with colcon in a ROS 2 workspace instead (README, 'With a real ROS 2')"
    if ! find_python >/dev/null; then
        if [[ -n ${PYTHON:-} ]]; then
            fail "PYTHON=$PYTHON is not CPython 3.11, and the ROS 2 wheels are for no other version"
        elif python3 -c '' 2>/dev/null && ! grep -qs bookworm /etc/os-release; then
            fail "the ROS 2 wheels are for CPython 3.11 only and this machine's python3 is" \
                "$(python3 -c 'import platform; print(platform.python_version())'): install Python 3.11 and call" \
                "make PYTHON=/path/to/python3.11, or build with colcon in a ROS 2 workspace"
        fi
    fi
    missing=$(missing_packages | xargs)
    [[ -z $missing ]] || fail "system packages are missing; install them with:  ${sudo}apt-get install --yes $missing"
}

# hash_of FILE...: one hash of names and contents; a folder stands for all files in it.
hash_of() {
    find "$@" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

requirements_key() { hash_of requirements tools/setup.sh; }
messages_key() { hash_of fleet_msgs requirements/ros.txt requirements/constraints.txt; }
# The list of packages counts, what is in them does not.
package_key() { printf '%s %s' "$(hash_of setup.py setup.cfg pyproject.toml)" "$(echo fleet*/__init__.py)"; }

is_current() { [[ -f $stamps/$1 && $(<"$stamps/$1") == "$2" ]]; }

everything_is_current() {
    [[ -x $python && ! -e $venv/unfinished ]] \
        && is_current folder "$PWD" \
        && is_current requirements "$(requirements_key)" \
        && is_current fleet_msgs "$(messages_key)" \
        && is_current fleet "$(package_key)"
}

# A terminal sees pip's own progress; a log gets pip's words only where it fails.
pip() {
    local quiet=(-qq)
    [[ ! -t 1 ]] || quiet=()
    "$python" -m pip --disable-pip-version-check "$@" ${quiet[@]+"${quiet[@]}"}
}

# step NAME KEY WHAT COMMAND...: runs the command unless the stamp says that it has been run.
step() {
    local name=$1 key=$2 what=$3 begin=$SECONDS
    shift 3
    ! is_current "$name" "$key" || return 0
    say "$what ..."
    rm -f "$stamps/$name"
    "$@" || fail "$what failed; what went wrong is printed above. The next call goes on from here"
    printf '%s' "$key" >"$stamps/$name"
    say "... done in $((SECONDS - begin)) s"
}

# Starts afresh where an interrupted call left off, where the interpreter is gone or another one, and where the folder has
# been moved (the scripts in bin name it). Any other environment is kept, one that somebody made by hand as well.
make_environment() {
    local interpreter problem
    rm -rf "$venv.old"
    if [[ -e $venv/unfinished ]] \
        || ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
        || [[ -e $stamps/folder && $(<"$stamps/folder") != "$PWD" ]]; then
        # Renamed first: an interrupted rm must not leave half an environment under the good name.
        [[ ! -e $venv ]] || mv "$venv" "$venv.old"
        rm -rf "$venv.old"
        interpreter=$(find_python)
        say "making $venv with $interpreter"
        mkdir -p "$venv"
        touch "$venv/unfinished"
        problem=$("$interpreter" -m venv "$venv" 2>&1) || fail "python -m venv failed: $problem"
    fi
    mkdir -p "$stamps"
    printf '%s' "$PWD" >"$stamps/folder"
}

install_requirements() {
    pip install pip --constraint requirements/constraints.txt \
        && pip install setuptools --constraint requirements/constraints.txt \
        --requirement requirements/base.txt --requirement requirements/ros.txt --requirement requirements/dev.txt
}

# Forced, because the version stays the same while the messages change.
install_messages() {
    pip install --no-deps --force-reinstall --build-constraint requirements/constraints.txt ./fleet_msgs
}

# setuptools warns of every editable install that it may be hidden by the current folder; here that is the same code.
install_package() {
    PYTHONWARNINGS=ignore pip install --no-deps --no-build-isolation --editable .
}

if [[ ${1:-} == --missing-packages ]]; then
    missing_packages | xargs
    exit
elif [[ $# -gt 0 ]]; then
    fail "unknown argument '$1': the only one is --missing-packages"
fi

everything_is_current && exit
check_system
# A second call waits here for the first and then finds everything done. The lock is on this file: there is no lock file
# to be left behind.
exec 9<tools/setup.sh
if ! flock --nonblock 9; then
    say "another set-up is under way in this folder; waiting for it"
    flock 9
fi
everything_is_current && exit
trap 'say "interrupted: the next call goes on from here"; exit 130' INT TERM
begin=$SECONDS
make_environment
step requirements "$(requirements_key)" "installing the requirements (about 1.8 GB on disk)" install_requirements
rm -f "$venv/unfinished"
step fleet_msgs "$(messages_key)" "building the messages (about half a minute)" install_messages
step fleet "$(package_key)" "installing fleet from this checkout" install_package
say "set up in $((SECONDS - begin)) s"
