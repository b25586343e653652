#!/usr/bin/env bash
# Makes .venv: the project, vLLM for CPUs, and the tools. Called by make, which sets the variables.
#
# .venv/.unfinished is there while a set-up runs, and becomes .venv/.ready at its end. One that is found by a later
# set-up was left by one that did not finish, in which any package may be half installed, so that begins afresh.
set -euo pipefail
cd "$(dirname "$0")/.."

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0
log=.venv/setup.log
terminal=; [ ! -t 1 ] || terminal=yes
SAYS='Looking|Collecting|Downloading|Processing|Obtaining|Building [a-z]+ for|Installing collected'
job=
trap '[ -z "$job" ] || kill -INT -- "-$job" 2>/dev/null || true' EXIT

die() {
    echo "error: $*" >&2
    exit 1
}

suitable() {  # whether $1 is a Python that vLLM has builds for
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local names=(python3.11 python3.12 python3.13 python3) name
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if suitable "$name"; then
            echo "$name"
            return
        fi
    done
    die "Python 3.11, 3.12 or 3.13 is needed, and $name is" \
        "$({ "$name" --version 2>/dev/null || echo missing; } | head -n 1);" \
        "name one: make setup PYTHON=/path/to/python3.11"
}

now() {  # what pip is doing, in a few words, from its log and from what it has installed
    local line verb what name names count
    line=$(tail -c "+$((logged + 1))" "$log" | grep -E "^ *($SAYS) " | tail -n 1)
    read -r verb what _ name _ <<<"$line"
    case $verb in
        Looking) echo "looking in its index" ;;
        Collecting) echo "collecting ${what%%[!a-zA-Z0-9._-]*}" ;;
        Downloading) echo "downloading ${what##*/}" ;;
        Processing) echo "preparing ${what##*/}" ;;
        Obtaining) echo "preparing the project" ;;
        Building) echo "building $name" ;;
        Installing)
            IFS=', ' read -ra names <<<"${line#*: }"
            count=$(find .venv/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' -newer .venv/.step | wc -l)
            [ "$count" -lt ${#names[@]} ] || count=$((${#names[@]} - 1))
            echo "installing ${names[count]} ($((count + 1)) of ${#names[@]})" ;;
    esac
}

run() {  # a command with its output in the log; meanwhile one line that says what goes on
    local begun=$SECONDS said=$SECONDS status=0 logged line
    logged=$(wc -c <"$log")
    touch .venv/.step
    set -m  # a process group of its own, so that all of it can be stopped
    "$@" >>"$log" 2>&1 </dev/null &
    set +m
    job=$!
    while kill -0 "$job" 2>/dev/null; do
        line="      $((SECONDS - begun)) s  $(now || true)"
        if [ "$terminal" ]; then
            printf '\r\033[K%s' "${line:0:$(($(tput cols 2>/dev/null || echo 80) - 1))}"
        elif [ $((SECONDS - said)) -ge 20 ]; then
            said=$SECONDS
            echo "$line"
        fi
        sleep 0.5
    done
    wait "$job" || status=$?
    job=
    [ -z "$terminal" ] || printf '\r\033[K'
    return "$status"
}

step() {  # $1: what it is; the rest: a command that must succeed
    echo "  $1"
    shift
    run "$@" || {
        echo "Set-up failed. The end of $log:" >&2
        grep -v '^WARNING' "$log" | tail -n 15 | cut -c 1-200 >&2
        exit 1
    }
}

install_torch() {  # a CPU build is called 2.13.0+cpu; the registry's 2.13.0 is for CUDA
    local build=torch==$TORCH_VERSION
    [[ $build == *+* ]] || build+=+cpu
    .venv/bin/python -m pip install --no-deps "$build" ||
        .venv/bin/python -m pip install --no-deps --index-url "$TORCH_INDEX" "$build"
}

case $(uname -sm) in
    'Linux x86_64' | 'Linux aarch64') ;;
    *) die "vLLM has CPU builds for Linux on x86_64 and aarch64 only, and this is $(uname -sm)" ;;
esac
base=  # the Python to make .venv from, if it is to be made
suitable .venv/bin/python || base=$(find_python)
mkdir -p .venv
left=$(cat .venv/.unfinished 2>/dev/null || true)
[ -z "$left" ] || ! kill -0 "$left" 2>/dev/null || die "a set-up is running already, as process $left"
echo $$ >.venv/.unfinished
rm -f .venv/.ready
if [ "$left" ]; then
    echo "The last set-up did not finish; beginning afresh"
    base=${base:-$(find_python)}
fi
[ -z "$base" ] || find .venv -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} +
: >"$log"

echo "Setting up .venv; the first time takes some minutes and 3 GB of disk"
[ -z "$base" ] || step "1/3 an environment for $("$base" --version)" "$base" -m venv .venv
step "2/3 torch $TORCH_VERSION, its CPU build" install_torch
gym=(reasoning-gym)  # pycosat, which it needs, is built from source
command -v cc >/dev/null || { gym=(); echo "  without reasoning-gym, whose set-up needs a C compiler"; }
step "3/3 vLLM and the rest, at the versions of requirements/constraints.txt" \
    .venv/bin/python -m pip install -r requirements/cpu.txt ${gym[@]+"${gym[@]}"} -c requirements/constraints.txt
mv .venv/.unfinished .venv/.ready
echo "Ready after $SECONDS s"
