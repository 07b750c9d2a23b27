#!/usr/bin/env bash
# make image-test: builds the Dockerfile without a registry, and verifies that the image starts read-only
# as an unprivileged user, serves the demo, keeps a state file, and stops on SIGTERM as PID 1.
#
# The base image is a substitute with the same name: Debian with its own Python, made by debootstrap. So
# this tests the Dockerfile and the package, not the Python version. Requires Linux, root and about 2 GB
# in TMPDIR; takes a few minutes. PIP_INDEX_URL and MIRROR override the sources of packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PACKAGES=(buildah podman runc debootstrap) # Debian's
UID_IN_IMAGE=65532
PORT=9978
STATE=/var/lib/modelarts-exporter
REVISION=0123456789abcdef0123456789abcdef01234567

say() { printf '== %s\n' "$*"; }
die() {
  printf 'image-test: %s\n' "$*" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || die "requires Linux and root (or use: make image)"
missing=()
for tool in "${PACKAGES[@]}"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ ${#missing[@]} -eq 0 ] || die "missing tools; on Debian or Ubuntu: apt-get install --no-install-recommends ${missing[*]}"

work=$(mktemp -d)
container=""
store=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
podman=(podman "${store[@]}" --cgroup-manager cgroupfs --runtime "$(command -v runc)")
finish() {
  if [ -n "$container" ]; then "${podman[@]}" rm --force --time 2 "$container" >/dev/null 2>&1 || true; fi
  rm -rf --one-file-system "$work"
}
trap finish EXIT

# --- the base --------------------------------------------------------------------------------------

base=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
suite=${base##*-}
say "building a substitute for $base: Debian $suite"
root="$work/root"
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" \
  ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2 && die "debootstrap failed"; }
# Use this machine's package index and certificates.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n%s\n' "${index:+index-url = $index}" >"$root/etc/pip.conf"
tar -C "$root" -c . | "${podman[@]}" import --quiet \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "docker.io/library/$base" >/dev/null
rm -rf --one-file-system "$root"

# --- the image -------------------------------------------------------------------------------------

say "building the image"
buildah "${store[@]}" bud --isolation chroot --network host --pull-never --quiet \
  --build-arg REVISION="$REVISION" --tag modelarts-exporter . >"$work/build.log" 2>&1 ||
  { tail -n 40 "$work/build.log" >&2 && die "the build failed"; }
"${podman[@]}" image inspect --format 'user {{.User}}, entrypoint {{.Config.Entrypoint}}, command {{.Config.Cmd}}' modelarts-exporter

limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024) # the defaults may exceed this machine's limits
# Like a hardened pod, with only a loopback network: the demo needs no other.
run() { # podman's options, --, the command
  local options=()
  while [ "$1" != -- ]; do options+=("$1") && shift; done
  shift
  "${podman[@]}" run --network none --read-only --read-only-tmpfs=false --cap-drop all \
    --security-opt no-new-privileges "${limits[@]}" --no-healthcheck \
    "${options[@]}" modelarts-exporter "$@"
}

say "without a target it reports what is missing and exits with 2"
code=0
run --rm -- serve >"$work/serve.log" 2>&1 || code=$?
sed 's/^/   /' "$work/serve.log"
[ "$code" = 2 ] || die "exit code $code"

say "its bill of materials"
run --rm --interactive --entrypoint python3 -- - <release/inventory.py >"$work/inventory.json"
python3 release/sbom.py --time 0 --image modelarts-exporter <"$work/inventory.json" >"$work/image.cdx.json"
for package in pypi/aiohttp generic/python deb/debian/libc6; do
  grep -q "\"purl\": \"pkg:$package@" "$work/image.cdx.json" || die "without $package"
done
printf '   components: %s\n' "$(grep -c '"purl":' "$work/image.cdx.json")"

say "the demo"
# A new volume is owned by root; change the owner as compose.yaml does.
"${podman[@]}" run --rm --network none --read-only --cap-drop all --cap-add CHOWN "${limits[@]}" --no-healthcheck --user 0:0 \
  --volume "state:$STATE" --entrypoint chown modelarts-exporter "$UID_IN_IMAGE:$UID_IN_IMAGE" "$STATE"
container=$(run --detach --volume "state:$STATE" \
  --env MODELARTS_EXPORTER_STATE__FILE=$STATE/state.db -- demo --jobs 2000)
pid=$("${podman[@]}" inspect --format '{{.State.Pid}}' "$container")

get() { # path: the body on success
  nsenter --net --target "$pid" python3 -ISc 'import http.client as h, sys
c = h.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=4)
c.request("GET", sys.argv[2])
r = c.getresponse()
sys.stdout.buffer.write(r.read())
sys.exit(r.status != 200)' $PORT "$1" 2>/dev/null
}
for _ in $(seq 120); do
  if get /-/ready >/dev/null; then break; fi
  kill -0 "$pid" 2>/dev/null || { "${podman[@]}" logs "$container" >&2 && die "it exited"; }
  sleep 0.5
done
get /-/ready >/dev/null || { "${podman[@]}" logs "$container" >&2 && die "not ready"; }

status() { awk -v "key=$1:" '$1 == key { $1 = ""; sub(/^ /, ""); print }' "/proc/$pid/status"; }
expect() { # description, actual, expected
  [ "$2" = "$3" ] || die "$1: got $2, expected $3"
  printf '   %s: %s\n' "$1" "$2"
}
nspid=$(status NSpid)
expect "process id inside" "${nspid##* }" 1
expect "users (real, effective, saved, file system)" "$(status Uid)" "$UID_IN_IMAGE $UID_IN_IMAGE $UID_IN_IMAGE $UID_IN_IMAGE"
expect "groups" "$(status Gid)" "$UID_IN_IMAGE $UID_IN_IMAGE $UID_IN_IMAGE $UID_IN_IMAGE"
expect "effective capabilities" "$(status CapEff)" 0000000000000000
expect "no new privileges" "$(status NoNewPrivs)" 1
expect "root file system" "$(awk '$5 == "/" { split($6, o, ","); print o[1] }' "/proc/$pid/mountinfo")" ro

get /metrics >"$work/metrics"
expect "modelarts_up" "$(awk '/^modelarts_up\{/ { print $2 }' "$work/metrics")" 1.0
expect "revision" "$(sed -n 's/^modelarts_exporter_build_info{.*revision="\([^"]*\)".*/\1/p' "$work/metrics")" "$REVISION"
printf '   series: %s\n' "$(grep -vc '^#' "$work/metrics")"
get / | grep -q '<html' || die "no page at /"

# buildah's image format has no health check, so its code is taken from the Dockerfile.
code=$(sed -n 's/.*CMD \["python3", "-ISc", "\(.*\)"\]$/\1/p' Dockerfile)
"${podman[@]}" exec "$container" python3 -ISc "$code" || die "the Dockerfile's health check fails"
say "the Dockerfile's health check succeeds"

say "SIGTERM to PID 1"
before=$(date +%s%N)
kill -TERM "$pid"
code=$(timeout 10 "${podman[@]}" wait "$container") || die "still running after 10 s"
after=$(date +%s%N)
expect "exit code" "$code" 0
printf '   after %d ms\n' $(((after - before) / 1000000))
state="$("${podman[@]}" volume inspect --format '{{.Mountpoint}}' state)/state.db"
[ -s "$state" ] || die "no state file"
printf '   state file: %s\n' "$(stat --format '%s bytes, owner %u' "$state")"
say "image-test: passed"
