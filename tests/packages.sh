#!/usr/bin/env bash
# What pip gives a user: the wheel and the source archive of this commit, each in clean environments.
#
#   tests/packages.sh [--run RUN] [--images DATA] [--folder FOLDER] [--python 3.12]... [STEP...]
#
#   same      make dist gives the same bytes twice
#   archive   the source archive builds and installs by itself, and its version is the wheel's
#   base      without extras: from wheels only, pip check, doctor, and the bundle of RUN judges images of DATA
#   tests     from wheels only, all but PyTorch: every test that needs no PyTorch, against the installed wheel
#   lowest    the same tests of the rooms that a device runs, at the lowest versions that pyproject.toml allows
#   extras    each extra resolves, at the newest and at the lowest versions; the pins fit each Python
#   run       uvx and pipx run the wheel
#   sbom      make sbom
#
# RUN (default runs/demo) and DATA (~/.cache/hvq-edge/solar-cells) are what `hvq-edge demo` leaves. Interpreters
# are those of --python (default 3.10 to 3.13), on PATH or pyenv's; archive, lowest and run take the first of them.
# All that is written lies in dist, .release and FOLDER (.release/packages). `--list` lists the steps.
set -euo pipefail
export LC_ALL=C.UTF-8 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" UV_PYTHON_PREFERENCE=only-system UV_PYTHON_DOWNLOADS=never
export PYTHONDONTWRITEBYTECODE=1

steps=(same archive base tests lowest extras run sbom)
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
run=runs/demo images=~/.cache/hvq-edge/solar-cells folder=.release/packages named=() pythons=()
usage() { sed -n '2,/^set /{/^set /d;s/^#\{1,\} \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
refuse() { echo "packages.sh: $1" >&2 && exit "${2:-2}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --run | --images | --folder | --python)
            [ $# -gt 1 ] || refuse "$1 needs a value"
            if [ "$1" = --python ]; then pythons+=("$2"); else declare "${1#--}=$2"; fi && shift ;;
        --list) printf '%s\n' "${steps[@]}" && exit ;;
        -h | --help) usage && exit ;;
        -*) refuse "no option $1; see --help" ;;
        *) [[ " ${steps[*]} " == *" $1 "* ]] || refuse "no step $1; they are: ${steps[*]}"
            named+=("$1") ;;
    esac
    shift
done
[ ${#named[@]} -gt 0 ] || named=("${steps[@]}")
[ ${#pythons[@]} -gt 0 ] || pythons=(3.10 3.11 3.12 3.13)
run=$(realpath -m "$run") images=$(realpath -m "$images") folder=$(realpath -m "$folder")
if command -v pyenv >/dev/null; then
    PYENV_VERSION=$(pyenv versions --bare | grep '^3' | paste -sd :) && export PYENV_VERSION
fi
export PYTHON="${PYTHON:-python${pythons[0]}}" # for make: python3 may be any of pyenv's now
cd "$project"
mkdir -p "$folder"

uv() { "$project/.release/bin/uv" "$@"; }
wheels_only=(--only-binary ':all:' --no-binary sdnotify) # of the extra factory, which has none

environment() { # environment NAME PYTHON REQUIREMENT...: made anew
    uv venv --quiet --clear --python "$2" "$folder/$1"
    uv pip install --quiet --python "$folder/$1" "${wheels_only[@]}" "${@:3}"
    uv pip check --quiet --python "$folder/$1"
}

step_same() {
    make dist >/dev/null
    diff -r "$folder/dist" dist && (cd dist && sha256sum -- *)
}

step_archive() {
    uv venv --quiet --clear --python "${pythons[0]}" "$folder/archive"
    uv pip install --quiet --python "$folder/archive" "$folder"/dist/*.tar.gz
    [[ $(basename "$folder"/dist/*.whl) == hvq_edge-"$("$folder/archive/bin/hvq-edge" --version | cut -d ' ' -f 2)"-* ]]
}

step_base() {
    local python
    [ -f "$run/bundle/bundle.json" ] || refuse "no bundle in $run: hvq-edge demo makes one, or --run"
    mapfile -t judged < <(find "$images" -path '*/test/*' -name '*.png' | sort | head -n 6)
    [ ${#judged[@]} -gt 0 ] || refuse "no images in $images: hvq-edge demo unpacks them, or --images"
    for python in "${pythons[@]}"; do
        environment "base-$python" "$python" "$(echo "$folder"/dist/*.whl)"
        if "$folder/base-$python/bin/python" -c 'import torch' 2>/dev/null; then return 1; fi
        "$folder/base-$python/bin/hvq-edge" doctor --bundle "$run/bundle" >"$folder/doctor-$python"
        "$folder/base-$python/bin/hvq-edge" predict "${judged[@]}" --bundle "$run/bundle" --backend onnxruntime \
            --precision fp32 | sed -E 's/  (score|p) [0-9. of]*//g' >"$folder/verdicts-$python"
        echo "$python: $("$folder/base-$python/bin/hvq-edge" --version), $(tail -n 1 "$folder/verdicts-$python")"
        diff "$folder/verdicts-${pythons[0]}" "$folder/verdicts-$python"
    done
}

# From a folder outside the checkout, which is not on the path either: what is tested is the wheel. Tests that hold
# documents or the checkout itself to the code say the same for every interpreter, and need it there.
tests_of() { # tests_of NAME FILE...
    rm -rf "$folder/path" && mkdir "$folder/path" && ln -s "$project/benchmarks" "$folder/path"
    (cd "$folder" && "$1/bin/pytest" -c "$project/pyproject.toml" -o "pythonpath=$project/tests $folder/path" \
        -p no:cacheprovider -q -n "${WORKERS:-2}" --dist loadfile --max-worker-restart 0 "${@:2}" >"$1.log" 2>&1) \
        || { tail -n 40 "$folder/$1.log" && return 1; }
    echo "$1: $(tail -n 1 "$folder/$1.log")"
}

device_rooms=("$project"/tests/{bundle,common,data,doctor,predict,run,runtime,stream,verdict})
rooms=("${device_rooms[@]}" "$project"/tests/{bench,calibration,cli,evaluation,explain,export,faults,model,training})

but_torch() { # of the extra train
    sed -n '/^train = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' pyproject.toml | grep -v '^torch\|^efficientnet'
}

step_tests() {
    local python failed=0
    mapfile -t more < <(but_torch)
    for python in "${pythons[@]}"; do # what one of them fails the others are still asked
        environment "tests-$python" "$python" --constraint constraints.txt \
            "$(echo "$folder"/dist/*.whl)[learn,heic,demo,factory,server,codes,test]" "${more[@]}" \
            && tests_of "tests-$python" "${rooms[@]}" || failed=1
    done
    return $failed
}

step_lowest() { # of the wheel's own requirements, which are direct in pyproject.toml alone
    uv pip compile --quiet --python-version "${pythons[0]}" --resolution lowest-direct "${wheels_only[@]}" \
        --extra learn --extra heic --extra demo --extra factory --extra server --extra codes --extra test \
        --output-file "$folder/lowest.txt" pyproject.toml >/dev/null
    environment lowest "${pythons[0]}" --constraint "$folder/lowest.txt" \
        "$(echo "$folder"/dist/*.whl)[learn,heic,demo,factory,server,codes,test]"
    tests_of lowest "${device_rooms[@]}"
}

step_extras() {
    local extra how python
    mapfile -t extras < <(sed -n '/^\[project.optional-dep/,/^\[project.scripts/s/^\([a-z]*\) = \[.*/\1/p' pyproject.toml)
    for extra in "${extras[@]}"; do
        for how in highest lowest-direct; do
            uv pip compile --quiet --python-version "${pythons[0]}" --resolution "$how" --extra "$extra" \
                --output-file "$folder/$extra-$how.txt" pyproject.toml >/dev/null
            echo "[$extra], $how: $(grep -c '^[a-z]' "$folder/$extra-$how.txt") packages"
        done
    done
    for python in "${pythons[@]}"; do
        uv pip compile --quiet --python-version "$python" --constraint constraints.txt --all-extras \
            --output-file "$folder/pinned-$python.txt" pyproject.toml >/dev/null
        echo "all extras as pinned, Python $python: $(grep -c '^[a-z]' "$folder/pinned-$python.txt") packages"
    done
}

step_run() {
    local file
    file=$(echo "$folder"/dist/*.whl)
    uv tool run --quiet --python "${pythons[0]}" --from "$file" hvq-edge --version
    uv tool run --quiet --python "${pythons[0]}" pipx run --spec "$file" hvq-edge doctor >"$folder/pipx-doctor"
    grep -q "^hvq-edge  *ok" "$folder/pipx-doctor"
}

step_sbom() { make sbom; }

rm -rf "$folder/dist" && make dist >/dev/null && cp -R dist "$folder/dist"
failed=()
for step in "${named[@]}"; do
    began=$SECONDS
    echo "$step ..."
    set +e
    (set -e && "step_$step")
    code=$?
    set -e
    echo "$step: $([ $code = 0 ] && echo passed || echo FAILED), $((SECONDS - began)) s"
    [ $code = 0 ] || failed+=("$step")
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" && exit 1; }
