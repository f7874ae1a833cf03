#!/usr/bin/env bash
# Compares everpack with other backup tools on the same data and disk; see README.md beside this file.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)

usage() {
    cat <<'EOF'
usage: run.sh [options]
  --size S           bytes of the first night of made data (512M)
  --nights N         nights of made data (5)
  --new P            new bytes each night (2%)
  --objects N        made data is N tiny objects instead
  --seed N           of the made data (1)
  --data DIR...      real data instead: one directory a night, in order
  --nights-as-paths  with --data: back the directories up where they are, not in one place one after the other
  --rounds N         repeat everything, alternating the order of the tools (3)
  --tools "A B"      only these; default: everpack cp restic borg borg-lz4 rustic bupstash desync
  --cold             drop the page cache before each measurement (needs root); default: warm
  --work DIR         everything happens below it (./field-work); removed at the end
  --keep             do not remove it
  --out DIR          results.jsonl, report.md and log.txt (./field-results)
environment: EVERPACK_BIN (target/release/everpack), FIELD_DATA_BIN (built with cargo if unset)
EOF
}

die() { echo "run.sh: $*" >&2; exit 1; }

size=512M nights=5 new=2% objects= seed=1 rounds=3 cold= keep= as_paths= work=./field-work out=./field-results
tools="everpack cp restic borg borg-lz4 rustic bupstash desync"
data=()
while [ $# -gt 0 ]; do
    case $1 in
        --size | --nights | --new | --objects | --seed | --rounds | --tools | --work | --out)
            [ $# -ge 2 ] || die "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        --data) while [ $# -ge 2 ] && [ "${2#--}" = "$2" ]; do data+=("$(realpath "$2")"); shift; done ;;
        --nights-as-paths) as_paths=1 ;;
        --cold) cold=1 ;;
        --keep) keep=1 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 1 ;;
    esac
    shift
done
case $nights$rounds in *[!0-9]*) die "--nights and --rounds are numbers" ;; esac
[ ${#data[@]} -eq 0 ] || nights=${#data[@]}
[ -z "$as_paths" ] || [ ${#data[@]} -gt 0 ] || die "--nights-as-paths goes with --data"
if [ -n "$cold" ] && ! [ -w /proc/sys/vm/drop_caches ]; then die "--cold may not write /proc/sys/vm/drop_caches"; fi

# A directory that was there before is used but only what is made below it goes away.
mkdir -p "$work" "$out"
work=$(realpath "$work")/run out=$(realpath "$out")
[ ! -e "$work" ] || die "$work exists: left over from another run? remove it"
mkdir "$work"
results=$out/results.jsonl log=$out/log.txt
: >"$results"
: >"$log"
# shellcheck disable=SC2317
cleanup() { [ -n "$keep" ] || rm -rf "$work"; }
trap cleanup EXIT

export XDG_CACHE_HOME=$work/cache RESTIC_CACHE_DIR=$work/cache/restic RESTIC_PASSWORD=bench RUSTIC_PASSWORD=bench
export BORG_BASE_DIR=$work/cache/borg BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BUPSTASH_KEY=$work/cache/bupstash.key
mkdir -p "$XDG_CACHE_HOME"

everpack_bin=${EVERPACK_BIN:-$top/target/release/everpack}
# --- the tools: what to run for each operation goes to the array `command`; $repo is the tool's own ------------------------

present() {
    case $1 in
        cp) true ;;
        everpack) [ -x "$everpack_bin" ] && "$everpack_bin" --version 2>/dev/null | grep -q '^everpack ' ;;
        borg-lz4) command -v borg >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

version() {
    case $1 in
        cp) cp --version | head -n 1 ;;
        everpack) "$everpack_bin" --version ;;
        borg-lz4) ;;
        restic) restic version | cut -d' ' -f1,2 ;;
        desync) echo desync ;;
        *) "$1" --version | head -n 1 ;;
    esac
}

init() {
    case $1 in
        cp) mkdir "$repo" ;;
        everpack) "$everpack_bin" init -r "$repo" ;;
        restic) restic init -r "$repo" ;;
        borg | borg-lz4) borg init --encryption none "$repo" ;;
        rustic) rustic -r "$repo" init ;;
        bupstash) [ -e "$BUPSTASH_KEY" ] || bupstash new-key -o "$BUPSTASH_KEY"; bupstash init -r "$repo" ;;
        desync) mkdir -p "$repo/store" ;;
    esac
}

# The name that tools without "latest" give to a backup.
backup_name() { echo "$1-$2"; }

backup_command() { # tool source name
    case $1 in
        cp) command=(cp -r --reflink=never "$2" "$repo/$3") ;;
        everpack) command=("$everpack_bin" backup -r "$repo" "$2") ;;
        restic) command=(restic backup -r "$repo" "$2") ;;
        borg) command=(borg create --compression zstd,1 "$repo::$3" "$2") ;;
        borg-lz4) command=(borg create "$repo::$3" "$2") ;;
        rustic) command=(rustic -r "$repo" backup "$2") ;;
        bupstash) command=(bupstash put -r "$repo" "name=$3" "$2") ;;
        desync) command=(desync tar -i -s "$repo/store" "$repo/$3.caidx" "$2") ;;
    esac
}

restore_command() { # tool target name
    case $1 in
        cp) command=(cp -r --reflink=never "$repo/$3" "$2/data") ;;
        everpack) command=("$everpack_bin" restore -r "$repo" latest "$2") ;;
        restic) command=(restic restore -r "$repo" latest --target "$2") ;;
        borg | borg-lz4) command=(env -C "$2" borg extract "$repo::$3") ;;
        rustic) command=(rustic -r "$repo" restore latest "$2") ;;
        bupstash) command=(bupstash restore -r "$repo" --into "$2" "name=$3") ;;
        desync) command=(desync untar -i -s "$repo/store" "$repo/$3.caidx" "$2") ;;
    esac
}

check_command() { # tool
    case $1 in
        cp) command=(sh -c 'find "$1" -type f -exec cat {} + >/dev/null' sh "$repo/$2") ;;
        everpack) command=("$everpack_bin" check -r "$repo" --read-data) ;;
        restic) command=(restic check -r "$repo" --read-data) ;;
        borg | borg-lz4) command=(borg check --verify-data "$repo") ;;
        rustic) command=(rustic -r "$repo" check --read-data) ;;
        bupstash) command=() ;; # has none
        desync) command=(desync verify -s "$repo/store") ;;
    esac
}

# --- measuring ---------------------------------------------------------------------------------------------------------------

# The page cache in the same state for everyone: without what is about to be read, or with all of it.
settle() {
    sync
    if [ -n "$cold" ]; then
        echo 3 >/proc/sys/vm/drop_caches
    else
        find "$@" -type f -exec cat {} + >/dev/null || true
    fi
}

bytes_of() { du --apparent-size -sb "$1" | cut -f1; }

failed=" "
measure() { # op tool night extra-json-facts... ; runs `command`
    local op=$1 tool=$2 night=$3 code=0 line
    shift 3
    line=$(python3 "$here/measure.py" --sync "$work" --log "$log" --fact "op=$op" --fact "tool=$tool" \
        --fact "night=$night" --fact "round=$round" --fact "source_bytes=$source_bytes" -- "${command[@]}") || code=$?
    [ -n "$line" ] || die "measuring $tool $op: no result, see $log"
    if [ "$code" -ne 0 ]; then
        failed="$failed$tool "
        echo "  $tool $op: exit $code, see $log; left out of the rest of this round" >&2
    fi
    measured=$line
}

record() { # adds facts to the last measurement: key value, numbers as numbers
    python3 - "$results" "$measured" "$@" <<'EOF'
import json, sys
row, facts = json.loads(sys.argv[2]), sys.argv[3:]
for key, value in zip(facts[::2], facts[1::2]):
    row[key] = int(value) if value.isdigit() else value
with open(sys.argv[1], "a") as results:
    results.write(json.dumps(row) + "\n")
print(f"  {row['tool']:9} {row['op']:9} {row['wall']:8.2f} s", file=sys.stderr)
EOF
}

# Everyone in turn, starting with another tool each time, backwards in every other round.
turn=0
in_order() {
    local all=() i n
    for tool in $running; do case $failed in *" $tool "*) ;; *) all+=("$tool") ;; esac; done
    n=${#all[@]}
    order=()
    [ "$n" -gt 0 ] || die "no tool is left, see $log"
    for ((i = 0; i < n; i++)); do
        if [ $((round % 2)) -eq 1 ]; then order+=("${all[(turn + i) % n]}"); else order+=("${all[(turn + n - i) % n]}"); fi
    done
    turn=$((turn + 1))
}

prepare_night() { # sets source and source_bytes
    if [ -n "$as_paths" ]; then
        source=${data[$1 - 1]}
    elif [ ${#data[@]} -gt 0 ]; then
        source=$work/source/data
        python3 "$here/tree.py" follow "${data[$1 - 1]}" "$source"
    else
        source=$work/source/data
        "$field_data" "$work/source" --night "$1" --merge-night "$nights" --size "$size" --new "$new" --seed "$seed" \
            ${objects:+--objects "$objects"} >>"$log"
    fi
    source_bytes=$(bytes_of "$source")
    # Tools read files again whose times are too close to the backup before.
    sync
    sleep 2
}

back_up_all() { # op night name-of-backup
    in_order
    for tool in "${order[@]}"; do
        repo=$work/repo-$tool
        backup_command "$tool" "$source" "$3"
        settle "$source"
        measure "$1" "$tool" "$2"
        record repo_bytes "$(bytes_of "$repo")"
    done
}

restore_and_check_all() { # name-of-backup
    local target=$work/restored digest restored
    digest=$(python3 "$here/tree.py" digest "$source")
    in_order
    for tool in "${order[@]}"; do
        repo=$work/repo-$tool
        mkdir "$target"
        restore_command "$tool" "$target" "$1"
        settle "$repo"
        measure restore "$tool" "$nights"
        restored=different
        [ "$(python3 "$here/tree.py" digest "$target")" != "$digest" ] || restored=same
        record restored "$restored"
        rm -rf "$target"
    done
    in_order
    for tool in "${order[@]}"; do
        repo=$work/repo-$tool
        check_command "$tool" "$1"
        [ ${#command[@]} -gt 0 ] || continue
        settle "$repo"
        measure check "$tool" "$nights"
        record
    done
}

# --- the run -----------------------------------------------------------------------------------------------------------------

field_data=${FIELD_DATA_BIN:-}
if [ ${#data[@]} -eq 0 ] && [ -z "$field_data" ]; then
    cargo build --quiet --release --manifest-path "$top/Cargo.toml" --example field-data
    field_data=${CARGO_TARGET_DIR:-$top/target}/release/examples/field-data
fi

running= absent= versions=
for tool in $tools; do
    if present "$tool"; then
        running="$running $tool"
        versions="$versions$(version "$tool" | sed 's/^/, /')"
    else
        absent="$absent $tool"
    fi
done
[ -z "$absent" ] || echo "absent:$absent" >&2
[ -n "$running" ] || die "none of the tools is there"

what="Made data: $size, $nights nights, $new new each, seed $seed${objects:+, $objects objects}."
[ ${#data[@]} -eq 0 ] || what="Real data: $nights nights${as_paths:+, each at its own path}."
cores=$(nproc)
cache=warm
[ -z "$cold" ] || cache=cold
how="$rounds rounds, $cores cores, page cache $cache, file system synced inside every measured time."
python3 - "$results" "$tools" "$what" "$how" "Versions: ${versions#, }. Absent:${absent:- none}." <<'EOF'
import json, sys
results, *values = sys.argv[1:]
with open(results, "a") as out:
    out.write(json.dumps({"op": "facts", **dict(zip(("tools", "what", "how", "versions"), values))}) + "\n")
EOF

for ((round = 1; round <= rounds; round++)); do
    failed=" "
    for tool in $running; do
        repo=$work/repo-$tool
        init "$tool" >>"$log" 2>&1 || { echo "  $tool init failed, see $log" >&2; failed="$failed$tool "; }
    done
    for ((night = 1; night <= nights; night++)); do
        echo "round $round, night $night" >&2
        prepare_night "$night"
        if [ "$night" -eq 1 ]; then
            back_up_all first 1 "$(backup_name 1 first)"
            back_up_all unchanged 1 "$(backup_name 1 unchanged)"
        else
            back_up_all nightly "$night" "$(backup_name "$night" nightly)"
        fi
    done
    newest=$(backup_name "$nights" nightly)
    [ "$nights" -gt 1 ] || newest=$(backup_name 1 unchanged)
    restore_and_check_all "$newest"
    rm -rf "$work"/repo-* "$work/source" "$XDG_CACHE_HOME"
    mkdir "$XDG_CACHE_HOME"
done

python3 "$here/report.py" "$results" | tee "$out/report.md"
