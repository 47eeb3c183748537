#!/usr/bin/env bash
# hvq-edge on Debian 12 for ARM64, under emulation: the same verdicts as on this machine? See docs/how-to/jetson.md.
#
#   sudo apt-get install debootstrap qemu-user-static
#   sudo tests/arm64.sh [--run RUN] [--images DATA] [--folder FOLDER] [STEP...]
#
# RUN (default runs/demo) and DATA (~/.cache/hvq-edge/solar-cells) are what `hvq-edge demo` leaves. The commands of
# this machine are those beside PYTHON (.venv/bin/python). All that is written lies in FOLDER (.arm64).
# A step that passed is not repeated unless it is named; `--list` lists them, `--result` prints the table again.
# Mounts and processes live in namespaces of their own and end with the script, however it ends.
set -euo pipefail
export LC_ALL=C.UTF-8 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PIP_DISABLE_PIP_VERSION_CHECK=1

steps=(root wheels install doctor verdicts openvino calibrate update page image)
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
run=runs/demo images=~/.cache/hvq-edge/solar-cells folder=.arm64 named=()
usage() { sed -n '2,/^set /{/^set /d;s/^#\{1,\} \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
refuse() { echo "arm64.sh: $1" >&2 && exit "${2:-2}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --run | --images | --folder)
            [ $# -gt 1 ] || refuse "$1 needs a folder"
            declare "${1#--}=$2" && shift ;;
        --list) printf '%s\n' "${steps[@]}" && exit ;;
        --result) result=yes ;;
        -h | --help) usage && exit ;;
        -*) refuse "no option $1; see --help" ;;
        *) [[ " ${steps[*]} " == *" $1 "* ]] || refuse "no step $1; they are: ${steps[*]}"
            named+=("$1") ;;
    esac
    shift
done

folder=$(realpath -m "$folder")
if [ -z "${result:-}" ]; then
    for need in debootstrap unshare qemu-aarch64-static; do
        command -v "$need" >/dev/null || refuse "no $need: apt-get install debootstrap qemu-user-static" 3
    done
    [ "$(id -u)" = 0 ] || refuse "needs root: it mounts, and makes a Debian system" 3
    python=$(realpath -s "${PYTHON:-$project/.venv/bin/python}")
    run=$(realpath -m "$run") images=$(realpath -m "$images")
    [ -x "$python" ] || refuse "no $python: make install"
    [ -f "$run/bundle/bundle.json" ] || refuse "no bundle in $run: hvq-edge demo makes one, or --run"
    [ -d "$images" ] || refuse "no images in $images: hvq-edge demo unpacks them, or --images"
    if [ -z "${ARM64_INSIDE:-}" ]; then
        mkdir -p "$folder"
        exec 9>"$folder/lock"
        flock --nonblock 9 || refuse "another run uses $folder"
        ARM64_INSIDE=yes exec unshare --mount --pid --fork --kill-child --propagation private --mount-proc -- \
            "${BASH_SOURCE[0]}" --run "$run" --images "$images" --folder "$folder" "${named[@]}"
    fi
fi

base=$folder/base wheels=$folder/wheels shared=$folder/shared binfmt=$folder/binfmt

# The kernel hands ARM programs to the emulator. An entry outlives mounts, so it is taken back; one of this folder
# that is there already is of a run that was killed.
emulate() {
    mkdir -p "$binfmt" && mount -t binfmt_misc binfmt_misc "$binfmt" # debootstrap unmounts the one in /proc
    entry=hvq-arm64-$(stat --format %i "$folder")
    trap '[ ! -e "$binfmt/$entry" ] || echo -1 >"$binfmt/$entry"' EXIT
    if [ ! -e "$binfmt/$entry" ]; then
        printf ':%s:M::%s:%s:/usr/bin/qemu-aarch64-static:OCF' "$entry" \
            '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' \
            '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' >"$binfmt/register"
    fi
    export QEMU_CPU=cortex-a76
    # ONNX Runtime reads the processor's kind here, and crashes at the x86 one that the emulator lets through.
    for ((core = 0; core < $(nproc); core++)); do
        printf 'processor\t: %s\nBogoMIPS\t: 100.00\nFeatures\t: %s\nCPU implementer\t: 0x41\n' "$core" \
            'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
        printf 'CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
    done >"$folder/cpuinfo"
}

# A system NAME: what is written into it lies over the base, which stays as debootstrap left it.
system() {
    local root=$folder/$1/root device
    mountpoint -q "$root" && return
    mkdir -p "$root" "$folder/$1/"{upper,work} "$shared" "$wheels"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/$1/upper,workdir=$folder/$1/work" "$root"
    mkdir -p "$root/shared" "$root/wheels"
    mount --bind "$shared" "$root/shared" && mount --bind "$wheels" "$root/wheels"
    mount -t proc proc "$root/proc" && mount --bind "$folder/cpuinfo" "$root/proc/cpuinfo"
    mount -t sysfs -o ro sysfs "$root/sys" && mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir -m 1777 "$root/dev/shm" && ln -s /proc/self/fd "$root/dev/fd"
}

# `arm COMMAND...` runs it in the system named by $in, in /shared; pip installs there what lies in /wheels.
in=plain
arm() {
    system $in
    chroot "$folder/$in/root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        QEMU_CPU="$QEMU_CPU" OMP_NUM_THREADS="$OMP_NUM_THREADS" DEBIAN_FRONTEND=noninteractive COLUMNS=160 \
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 \
        sh -c 'cd /shared && exec "$@"' sh "$@"
}
here() { (cd "$shared" && "$(dirname "$python")/$1" "${@:2}"); }
says() { echo "$1" >>"$folder/said/$step"; } # into the table
expect() { # expect CODE COMMAND...: it must end so
    local code=0
    "${@:2}" || code=$?
    [ $code = "$1" ] || { says "FAILED: \`${*:3}\` ended with $code, not $1" && return 1; }
}

# Packages are unpacked by this machine and not configured: that takes no emulation, and is enough for Python.
step_root() {
    local package
    rm -rf "$base" "$base.part" "$folder"/{plain,image}
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,python3-venv,libgl1,libglib2.0-0 \
        bookworm "$base.part"
    for package in "$base.part"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$base.part" --keep-directory-symlink
    done
    for package in passwd group; do cp "$base.part/usr/share/base-passwd/$package.master" "$base.part/etc/$package"; done
    # In a container debootstrap leaves a link there that leads to itself from within.
    [ ! -L "$base.part/proc" ] || { rm "$base.part/proc" && mkdir "$base.part/proc"; }
    mv "$base.part" "$base"
    says "Debian $(cat "$base/etc/debian_version"), $(qemu-aarch64-static --version | head -n 1), $QEMU_CPU"
}

# This machine's pip with ARM64 as its target: under emulation it takes many minutes (step image runs it there).
# Markers are read as this machine's, so OpenVINO is fetched too.
pip_for_arm() { # pip_for_arm download|install ARGUMENT...
    local glibc platforms=(--platform linux_aarch64 --platform manylinux2014_aarch64)
    for glibc in {17..36}; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
    "$python" -m pip "$1" --quiet "${platforms[@]}" --python-version 3.11 --only-binary ':all:' --find-links "$wheels" \
        "${@:2}"
}

# What has no wheel for ARM64 is made here where it is pure Python.
step_wheels() {
    local extra get=(pip_for_arm download --constraint "$project/constraints.txt" --dest "$wheels")
    rm -rf "$folder/source" "$wheels"/hvq_edge-* && mkdir -p "$wheels" "$folder/source"
    cp -R "$project"/{pyproject.toml,README.md,LICENSE,hvq_edge,export,calibration} "$folder/source"
    "$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$wheels" "$folder/source"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" --constraint "$project/constraints.txt" sdnotify
    rm -r "$folder/source"
    "${get[@]}" 'setuptools>=77' 'setuptools-scm>=8' 'cuda-bindings>=12.8,<13'
    # As JetPack 6 needs it, with Python 3.10.
    pip_for_arm download --no-deps --dest "$wheels" 'numpy>=1.26,<2' "$(grep ^tomli== "$project/constraints.txt")"
    for extra in factory server codes learn heic; do
        if "${get[@]}" "hvq-edge[$extra] @ file://$(echo "$wheels"/hvq_edge-*.whl)"; then
            says "[$extra]: wheels for all"
        else
            says "[$extra]: something has no wheel, see log/wheels"
        fi
    done
}

step_install() {
    local venv=$folder/plain/root/venv site
    arm python3 -m venv --clear --without-pip /venv
    site=$(echo "$venv"/lib/python3.*/site-packages)
    pip_for_arm install --no-index --no-compile --constraint "$project/constraints.txt" --target "$site" \
        'hvq-edge[factory]'
    rm -rf "$folder/openvino" && mkdir "$folder/openvino" && mv "$site"/openvino* "$folder/openvino"
    sed '1s|.*|#!/venv/bin/python3|' "$site/bin/hvq-edge" >"$venv/bin/hvq-edge" && chmod +x "$venv/bin/hvq-edge"
    expect 0 arm hvq-edge --version
    says "$(cd "$site" && printf '%s ' {numpy,onnxruntime,opencv_python,av}-*.dist-info | sed 's/.dist-info//g')"
}

step_doctor() {
    cp -R --remove-destination "$run/bundle" "$shared"
    expect 0 arm hvq-edge doctor --bundle bundle
    says "$(arm uname -m), exit code 0"
}

# The first two good and two defective test images of each category, under names that keep their order.
some_images() {
    local kind file name
    rm -rf "$shared/images" && mkdir -p "$shared/images"
    for kind in "$images"/*/test/*; do
        find "$kind" -type f | sort | head -n 2 | while read -r file; do
            name=${file#"$images"/}
            cp "$file" "$shared/images/${name//\//-}"
        done
    done
}
stream() { # stream here|arm PRECISION BACKEND
    rm -rf "$shared/out-$1-$2-$3"
    "$1" hvq-edge stream --bundle bundle --camera images --precision "$2" --backend "$3" --no-video --no-display \
        --out "out-$1-$2-$3"
}
compared() { # compared PRECISION BACKEND
    "$python" - "$shared" "$@" <<'END'
import json, sys
from pathlib import Path
shared, precision, backend = Path(sys.argv[1]), *sys.argv[2:]
x86, arm = (
    [json.loads(row) for row in (shared / f"out-{on}-{precision}-{backend}/decisions.jsonl").open()]
    for on in ("here", "arm")
)
assert len(x86) == len(arm) == len(list((shared / "images").iterdir())) > 0, (len(x86), len(arm))
pairs = list(zip(x86, arm))
same = sum(a["verdict"] == b["verdict"] and a["category"] == b["category"] for a, b in pairs)
furthest = max(abs(a["score"] - b["score"]) for a, b in pairs)
speed = sorted(one["latency_ms"] for one in arm)[len(arm) // 2]
rejects = sum(one["verdict"] == "reject" for one in x86)
print(f"{precision} on {backend}: {same} of {len(pairs)} verdicts as on x86-64 ({rejects} are rejects), "
      f"scores differ by {furthest:.2g} at most, {speed / 1000:.1f} s from frame to verdict, queue included")
sys.exit(same != len(pairs))
END
}

step_verdicts() {
    local precision said code=0
    some_images
    for precision in fp32 int8; do
        expect 0 stream here $precision onnxruntime
        expect 0 stream arm $precision onnxruntime
        said=$(compared $precision onnxruntime) || code=1
        says "$said"
    done
    return $code
}

# OpenVINO is no dependency on ARM64. Whoever installs it is to be told where it computes wrongly.
step_openvino() {
    system $in
    local precision code said failed=0
    cp -R "$folder/openvino/." "$(echo "$folder"/plain/root/venv/lib/python3.*/site-packages)"
    [ -d "$shared/images" ] || some_images
    for precision in fp32 int8; do
        expect 0 stream here $precision openvino
        code=0 && stream arm $precision openvino >"$folder/said/openvino.out" 2>&1 || code=$?
        cat "$folder/said/openvino.out"
        if [ $code = 0 ]; then
            said=$(compared $precision openvino) || failed=1
            says "$said"
        elif [ $code = 1 ] && grep -q 'computes wrongly' "$folder/said/openvino.out"; then
            says "$precision on openvino: refused by the known answers: it $(tr -s ' \n' ' ' \
                <"$folder/said/openvino.out" | grep -o 'computes wrongly[^(]*')"
        else
            says "FAILED: $precision on openvino ended with $code" && failed=1
        fi
    done
    rm -rf "$folder"/plain/root/venv/lib/python3.*/site-packages/openvino*
    return $failed
}

step_calibrate() {
    local on kind said code
    rm -rf "$shared"/good "$shared"/calibrated-*
    for kind in "$images"/*/test/good; do
        mkdir -p "$shared/good/$(basename "${kind%/test/good}")"
        find "$kind" -type f | sort | head -n 24 |
            xargs cp -t "$shared/good/$(basename "${kind%/test/good}")"
    done
    for on in here arm; do
        cp -R "$run/bundle" "$shared/calibrated-$on"
        expect 0 $on hvq-edge calibrate "calibrated-$on" --good good --precision fp32 --backend onnxruntime
    done
    code=0
    said=$("$python" - "$shared" <<'END'
import sys
from pathlib import Path
from hvq_edge.bundle.opened import open_bundle
x86, arm = (open_bundle(Path(sys.argv[1]) / f"calibrated-{on}").manifest.thresholds["fp32"] for on in ("here", "arm"))
off = max(abs(x86[name].value - arm[name].value) for name in x86)
print(f"thresholds of {len(x86)} categories differ from x86-64's by {off:.2g} at most")
sys.exit(set(x86) != set(arm) or off > 1e-3)
END
    ) || code=$?
    says "$said"
    return $code
}

step_update() {
    rm -rf "$shared/device" "$shared/bundle.hvq"
    here hvq-edge bundle pack "$run/bundle" --out bundle.hvq
    expect 0 arm hvq-edge bundle install bundle.hvq --into device
    expect 0 arm hvq-edge stream --bundle device/current --camera images --max-frames 1 --no-display
    says "installed with its self test, and judged with"
}

step_page() {
    local port=18642 pid waited=0 code=0
    system $in
    arm hvq-edge stream --bundle bundle --camera images --play --backend onnxruntime --precision fp32 --no-display \
        --page --page-port $port &
    pid=$!
    until "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/healthz', timeout=30)"; do
        kill -0 $pid 2>/dev/null || { wait $pid || says "FAILED: stream ended with $?" && return 1; }
        [ $((waited += 1)) -lt 300 ] || { kill $pid; says "FAILED: no healthy page in time" && return 1; }
        sleep 2
    done
    "$python" - $port >>"$folder/said/$step" <<'END' || code=1
import sys, urllib.request
for path in ("", "healthz", "metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/{path}", timeout=60) as answer:
        body = answer.read()
        assert answer.status == 200 and body, path
        print(f"/{path}: 200, {len(body)} bytes")
END
    kill -TERM "$(pgrep -P $pid)"
    wait $pid || { says "FAILED: stream ended with $? after SIGTERM" && code=1; }
    return $code
}

# Dockerfile.jetson, command for command of its RUN lines, on Debian in place of JetPack.
step_image() {
    local code=0 line kind source target library root=$folder/image/root
    rm -rf "$folder/image" # what was interrupted half-way cannot be gone on with
    in=image && system $in
    # As in Docker's images of Debian: no sync for each file, and no service is started.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"
    # Its apt needs a system that is configured. What only unpacks is this machine's; all that packages run is ARM64's.
    mkdir -p "$root"/var/lib/dpkg/{info,triggers,updates} && ln -sf mawk "$root/usr/bin/awk"
    PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive dpkg --root="$root" --unpack \
        --force-architecture --force-depends --force-unsafe-io "$base"/var/cache/apt/archives/*.deb
    rm -f "$root/var/lib/dpkg/arch"
    arm dpkg --configure --pending
    mkdir "$root/usr/lib64" && ln -s usr/lib64 "$root/lib64"
    for library in $(ldd /usr/bin/dpkg-deb | grep -o '/[^ ]*'); do cp --parents "$library" "$root"; done
    cp --remove-destination /usr/bin/dpkg-deb "$root/usr/bin/dpkg-deb"
    printf '[install]\nno-compile = no\n' >"$root/etc/pip.conf" # which is how pip reads "compile nothing"
    "$python" - "$project" "$folder/image" <<'END'
import re, sys
from pathlib import Path
project, folder = map(Path, sys.argv[1:])
text = re.sub(r"^#.*\n", "", (project / "Dockerfile.jetson").read_text(), flags=re.M).replace("\\\n", " ")
given = {"OPENCV": "python3-opencv"}
where, out = "/", []
for line in text.splitlines():
    kind, _, rest = line.partition(" ")
    if kind == "ARG":
        name, _, value = rest.partition("=")
        given.setdefault(name, value.strip('"'))
    for name, value in given.items():
        rest = rest.replace("${" + name + "}", value)
    if kind == "WORKDIR":
        where = rest
    elif kind == "COPY":
        *sources, target = rest.split()
        for source in sources:
            out.append(f"COPY {source} {where}/{target if target != './' else source}")
    elif kind == "RUN":
        out += [f"RUN mkdir -p {where} && cd {where} && " + re.sub(r"\s+", " ", one) for one in rest.split(" && ")]
(folder / "commands").write_text("\n".join(out) + "\n")
END
    while IFS= read -r line; do
        read -r kind source target <<<"$line"
        if [ "$kind" = COPY ]; then
            mkdir -p "$(dirname "$folder/image/root$target")"
            cp -RT "$project/$source" "$folder/image/root$target"
            continue
        fi
        line=${line#RUN }
        if [[ $line == *python3-libnvinfer* ]]; then
            says "cannot run here: python3-libnvinfer, JetPack's own; nvidia-opencv is python3-opencv here"
            line=${line/python3-libnvinfer/}
        fi
        if arm sh -c "$line" </dev/null; then
            says "passed: \`$(cut -c 1-90 <<<"${line#*&& *&& }")\`"
        else
            says "did not pass: \`$(cut -c 1-90 <<<"${line#*&& *&& }")\`"
            [[ $line == *find_spec*tensorrt* ]] || code=1 # no machine but a board or NVIDIA's image has it
        fi
    done <"$folder/image/commands"
    arm rm -rf /var/cache/apt/archives
    return $code
}

table() {
    local step
    echo "| step | s, under emulation | |" && echo "|---|---|---|"
    for step in "${steps[@]}"; do
        [ -e "$folder/took/$step" ] || continue
        echo "| $step | $(cat "$folder/took/$step") | $(sed ':a;N;$!ba;s/\n/<br>/g' "$folder/said/$step") |"
    done
}
if [ -n "${result:-}" ]; then table && exit; fi

main() {
    local failed=0 code began
    mkdir -p "$folder"/{log,said,took,passed} "$shared"
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    emulate
    for step in "${steps[@]}"; do
        [[ ${#named[@]} -eq 0 || " ${named[*]} " == *" $step "* ]] || continue
        if [[ ${#named[@]} -eq 0 && -e $folder/passed/$step ]]; then continue; fi
        echo "$step ... ($folder/log/$step)"
        rm -f "$folder/passed/$step" && : >"$folder/said/$step"
        began=$SECONDS in=plain
        # In a shell of its own, so that the first command that fails ends the step.
        set +e
        (set -e && "step_$step") >"$folder/log/$step" 2>&1
        code=$?
        set -e
        echo $((SECONDS - began)) >"$folder/took/$step"
        if [ $code = 0 ]; then
            touch "$folder/passed/$step"
        else
            failed=1
            grep -q 'FAILED' "$folder/said/$step" || echo "FAILED: see log/$step" >>"$folder/said/$step"
            tail -n 5 "$folder/log/$step"
            case $step in root | wheels | install) break ;; esac # the others rest on these
        fi
    done
    table
    return $failed
}
main; exit # read at once: whoever changes this file while it runs changes nothing of this run
