# shellcheck shell=sh disable=SC2154
# (SC2154: rh_self comes from the file that sources this one)
# Sourced by bin/rh-*: finds the checkout, makes its virtual environment on first use, and starts the command in it.
# The caller sets rh_self to its own path, symbolic links resolved; rh-check also sets rh_venv_name, rh_lock_name and rh_compile.
# After it: $rh_root (the checkout), $rh_venv (the environment), rh_run.
#
#   RH_PYTHON   the interpreter to make the environment with; another value than the last one remakes it
#   RH_VENV     where it is kept; else .venv in the checkout; else, where that may not be written,
#               ${XDG_DATA_HOME:-~/.local/share}/rogue-hunter/venv-HASH, HASH of the checkout's path
#
# Set-up speaks on stderr, reads nothing from stdin, and fails with 69 (EX_UNAVAILABLE). The warm path costs two forks:
# the subshell that finds the checkout, and cmp (a library that the lock no longer names must not be used unnoticed).

# An exported CDPATH would send a relative `cd` elsewhere and print where.
rh_root=$(CDPATH='' cd -P -- "${rh_self%/*}/.." && pwd -P) || exit 69
rh_lock=$rh_root/${rh_lock_name:-bin/requirements.lock}

rh_say() { printf 'rogue-hunter: %s\n' "$*" >&2; }

# Is the environment whole, made for this checkout, from this lock file and by the interpreter that is asked for?
# An interpreter that has vanished, or that this user may not run, fails the first test. `made` and `lock` are written
# last, so that a set-up that was killed is never taken for a finished one.
rh_ready() {
    [ -x "$rh_venv/bin/python" ] && [ -r "$rh_venv/.rogue-hunter/made" ] || return 1
    { IFS= read -r rh_made_for && IFS= read -r rh_made_by; } <"$rh_venv/.rogue-hunter/made" || return 1
    [ "$rh_made_for" = "$rh_root" ] && [ "${RH_PYTHON:-$rh_made_by}" = "$rh_made_by" ] &&
        cmp -s -- "$rh_lock" "$rh_venv/.rogue-hunter/lock"
}

# May this user make it here? A checkout can belong to someone else; so can an environment made by sudo.
rh_writable() {
    if [ -e "$rh_venv" ]; then [ -w "$rh_venv" ]; else [ -w "$rh_root" ]; fi
}

rh_own_place() {
    case ${XDG_DATA_HOME:-} in
        /*) rh_data=$XDG_DATA_HOME ;;       # a relative one is to be ignored, says the XDG specification
        *) rh_data=${HOME:-}/.local/share ;;
    esac
    rh_sum=$(printf '%s/%s' "$rh_root" "${rh_venv_name:-.venv}" | cksum) || return 1
    printf '%s/rogue-hunter/venv-%s\n' "$rh_data" "${rh_sum%% *}"
}

# Prints the interpreter's path if it is a CPython that is new enough. Its version stands in the path that is chosen
# (python3.11, not python3): after an upgrade of the system's Python the environment then dangles and is remade, where it would
# else look for its libraries under another version. _base_executable: python3 may be that of the environment to be remade.
rh_probe() {
    rh_named=$("$1" -I -S -c '
import os, platform, sys
if sys.version_info < (3, 11) or platform.python_implementation() != "CPython":
    sys.exit(1)
base = getattr(sys, "_base_executable", None) or sys.executable
named = os.path.join(os.path.dirname(base), "python%d.%d" % sys.version_info[:2])
print(named if os.access(named, os.X_OK) else base)' 2>/dev/null) && [ -n "$rh_named" ] && printf '%s\n' "$rh_named"
}

# Every python3 on PATH before any python3.N: the first may be too old, or a shim in a home that may not be entered.
rh_find_python() {
    if [ -n "${RH_PYTHON:-}" ]; then
        rh_probe "$RH_PYTHON" && return 0
        rh_say "RH_PYTHON: $RH_PYTHON cannot be run, or is no CPython 3.11 or newer"
        return 1
    fi
    for rh_name in python3 python3.14 python3.13 python3.12 python3.11; do
        rh_rest=$PATH:
        while [ -n "$rh_rest" ]; do
            rh_try=${rh_rest%%:*}/$rh_name
            rh_rest=${rh_rest#*:}
            case $rh_try in /*) ;; *) continue ;; esac
            [ -f "$rh_try" ] && [ -x "$rh_try" ] && rh_probe "$rh_try" && return 0
        done
    done
    # uv may keep one that is not on PATH; this looks for it and downloads nothing.
    rh_try=$(uv python find --no-project '>=3.11' 2>/dev/null) && rh_probe "$rh_try" && return 0
    rh_say 'no CPython 3.11 or newer on PATH: install one (Debian, Ubuntu: apt install python3), or name it with RH_PYTHON'
    return 1
}

# A pipeline starts several launchers at once: the kernel's lock on descriptor 9 lets one of them work. It is held by every
# process of a set-up, so a kill -9 frees it, but not before an installer that outlived its launcher has ended.
rh_hold() {
    "$rh_base" -I -S -c '
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.stderr.write("rogue-hunter: waiting for another set-up of the same environment\n")
    fcntl.flock(0, fcntl.LOCK_EX)
except OSError as error:
    sys.stderr.write("rogue-hunter: continuing without a lock: %s\n" % error)' <&9
}

# Empties the place, but only one that is ours: RH_VENV can name anything, a home directory too.
rh_clear() {
    if [ ! -d "$rh_venv/.rogue-hunter" ]; then
        for rh_entry in "$rh_venv"/* "$rh_venv"/.[!.]*; do
            if [ -e "$rh_entry" ] || [ -h "$rh_entry" ]; then
                rh_say "$rh_venv holds files and was not made by rogue-hunter: name an empty or new place with RH_VENV"
                return 1
            fi
        done
        mkdir -p -- "$rh_venv/.rogue-hunter" || return 1
    fi
    rm -f -- "$rh_venv/.rogue-hunter/lock" "$rh_venv/.rogue-hunter/made"
    for rh_entry in "$rh_venv"/* "$rh_venv"/.[!.]*; do
        case $rh_entry in */.rogue-hunter) ;; *) rm -rf -- "$rh_entry" || return 1 ;; esac
    done
}

rh_by_uv() {
    command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1 || return 1    # a shim may stand for no uv at all
    uv venv -q --no-project --allow-existing --python "$rh_base" "$rh_venv" && rh_uv_install uv
}

rh_uv_install() {
    "$1" pip install -q "${rh_compile:---compile}" --python "$rh_venv/bin/python" --no-deps --require-hashes -r "$rh_lock"
}

# Without ensurepip where the interpreter has a pip (22.3 or newer) of its own: 3 s less, and Debian's python3 has no ensurepip
# unless python3-venv is installed.
rh_by_pip() {
    if "$rh_base" -m venv --without-pip "$rh_venv" 2>/dev/null; then
        if "$rh_base" -m pip --python "$rh_venv/bin/python" --version >/dev/null 2>&1; then
            rh_pip_install "$rh_base" -m pip --python "$rh_venv/bin/python"
            return
        elif "$rh_venv/bin/python" -c 'import ensurepip' 2>/dev/null; then
            "$rh_venv/bin/python" -m ensurepip >/dev/null && rh_pip_install "$rh_venv/bin/python" -m pip
            return
        fi
    fi
    if "$rh_base" -m virtualenv -q "$rh_venv" 2>/dev/null; then
        rh_pip_install "$rh_venv/bin/python" -m pip
        return
    fi
    rh_say "$rh_base has neither pip nor ensurepip: install one (Debian, Ubuntu: apt install python3-venv), or install uv"
    return 1
}

# User-wide pip settings made for other places would send the packages there, or refuse. The lock of the tests has uv, too: once
# pip has installed it, it installs the other hundred, several at once and in a third of the CPU time. It does not read pip's
# settings: where it reaches no index, pip installs them.
rh_pip_install() {
    unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN
    export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 UV_SYSTEM_CERTS=1     # uv brings certificates of its own, pip uses the system's
    set -- "$@" install -q "${rh_compile:---compile}" --disable-pip-version-check --no-input --no-deps --require-hashes
    rh_uv=
    while IFS= read -r rh_line; do
        case $rh_line in uv==*) rh_uv=yes ;; [a-z]*) rh_uv='' ;; esac       # else the next hash of the same package
        [ -z "$rh_uv" ] || printf '%s\n' "$rh_line"
    done <"$rh_lock" >"$rh_venv/.rogue-hunter/lock-uv"
    if [ -s "$rh_venv/.rogue-hunter/lock-uv" ] && "$@" -r "$rh_venv/.rogue-hunter/lock-uv"; then
        rh_uv_install "$rh_venv/bin/uv" && return 0
        rh_say 'uv could not install the packages: pip does'
    fi
    "$@" -r "$rh_lock"
}

# The package runs from the checkout: a .pth file leads there, and nothing is built.
rh_make() {
    rh_clear || return 1
    rh_say "first use: making $rh_venv with $rh_base (some seconds)"
    rh_by_uv || { rh_clear && rh_by_pip; } || return 1
    for rh_site in "$rh_venv"/lib/python*/site-packages; do
        printf '%s\n' "$rh_root" >"$rh_site/rogue_hunter.pth" || return 1
    done
    printf '%s\n%s\n' "$rh_root" "${RH_PYTHON:-}" >"$rh_venv/.rogue-hunter/made" &&
        cp -- "$rh_lock" "$rh_venv/.rogue-hunter/lock.new" &&
        mv -f -- "$rh_venv/.rogue-hunter/lock.new" "$rh_venv/.rogue-hunter/lock"
}

rh_setup() {
    (
        # In the checkout: the project whose directory the user stands in has no say in which packages are taken.
        cd -- "$rh_root" || exit 1
        umask "${rh_umask:-$(umask)}"
        mkdir -p -- "${rh_venv%/*}" || exit 1
        rh_base=$(rh_find_python) || exit 1
        {
            rh_hold || exit 1
            rh_ready || rh_make || exit 1
        } 9>>"$rh_venv.lock"
    ) </dev/null >&2 || { rh_say 'set-up failed'; return 1; }
}

# rh_run NAME ARGUMENT...: becomes the command rh-NAME. -P: what lies in the current directory is never imported.
rh_run() {
    # A user who may not write byte code beside the sources keeps it in an own environment: compiling at each start costs 100 ms.
    if [ ! -w "$rh_root/rogue_hunter" ] && [ -w "$rh_venv" ]; then
        exec "$rh_venv/bin/python" -P -X pycache_prefix="$rh_venv/pycache" -m rogue_hunter "$@"
    fi
    exec "$rh_venv/bin/python" -P -m rogue_hunter "$@"
}

# PYTHONHOME and PYTHONPATH would mix other libraries in; the other two cost time at each start and at each record.
unset PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED rh_umask

case ${RH_VENV:-} in
    '') rh_venv=$rh_root/${rh_venv_name:-.venv} ;;
    /*) rh_venv=$RH_VENV${rh_venv_suffix:-} ;;
    *) rh_venv=$PWD/$RH_VENV${rh_venv_suffix:-} ;;
esac
if ! rh_ready; then
    if [ -z "${RH_VENV:-}" ] && ! rh_writable; then
        rh_venv=$(rh_own_place) || exit 69
        rh_umask=077    # the database is kept in the same directory
    fi
    rh_ready || rh_setup || exit 69
fi
