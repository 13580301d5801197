# Shared by the benchmarks: programs, ports, processes of our own, medians.
top=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd); cd "$top"
work=$(mktemp -d) pids=()
server=(taskset -c 0) # what a server is started with
cleanup() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null; umount "$work/volume" 2>/dev/null || true; chmod -R u+w "$work"; rm -rf "$work"; }
trap cleanup EXIT

need() { # PROGRAM PACKAGE...: installs Debian packages for a program that is missing
  local program=$1; shift
  command -v "$program" >/dev/null && return
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
# A new file system at $work/volume, as a cache has in a cluster. On one where a benchmark has just removed the files of the
# round before, ext4 spends half of the time of a download in looking for inodes that were not freed a moment ago.
fresh_volume() {
  mkdir -p "$work/volume"
  [ "$(id -u)" = 0 ] || { chmod -R u+w "$work/volume"; rm -rf "$work/volume"; mkdir "$work/volume"; return; }
  umount "$work/volume" 2>/dev/null || true
  rm -f "$work/volume.img"; truncate -s 8G "$work/volume.img"
  mkfs.ext4 -q "$work/volume.img"
  # Past the page cache of the file system below, which a cluster's volume does not have; the device goes with the mount.
  local device; device=$(losetup --direct-io=on --find --show "$work/volume.img")
  mount "$device" "$work/volume"; losetup --detach "$device"
}
release() { # builds, and prints, the binary; BINARY: one that is built already
  [ -n "${BINARY:-}" ] || cargo build --locked -q --release
  echo "${BINARY:-$top/target/$(rustc -vV | sed -n 's/^host: //p')/release/gomodcache}"
}
mirror() { # FOLDER PAUSE: an upstream with latency, run by "${server[@]}"; sets mirror_address, mirror_key and mirror_pid
  [ -x "$work/mirror" ] || go -C tests/oracle build -o "$work/mirror" ./mirror
  local said; said=$(mktemp -p "$work")
  "${server[@]}" "$work/mirror" "$1" "$2" sum.example >"$said" & mirror_pid=$!; pids+=("$mirror_pid")
  until [ "$(wc -l <"$said")" -ge 2 ]; do sleep 0.05; done
  mirror_address=$(sed -n 1p "$said") mirror_key=$(sed -n 2p "$said")
}
await() { # URL: until it answers
  local _; for _ in $(seq 400); do curl -fs -o /dev/null "$1" && return; sleep 0.025; done
  echo "benches: $1 did not answer" >&2; return 1
}
stop() { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }
field() { awk -v f="$2" '{print $f}' "$1"; } # FILE N
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
lowest() { sort -n | head -1; }
highest() { sort -n | tail -1; }
# A policy as a company may have it: it costs what it costs.
policy() { printf 'policy: {deny: ['; for i in $(seq 100); do printf "'denied%s.example/*', " "$i"; done; printf ']}\n'; }
machine() { printf '%s, %s cores, %s; %s; %s; %s\n' "$(uname -srm)" "$(nproc)" "$(awk -F': ' '/model name/{print $2; exit}' /proc/cpuinfo)" "$(go version | cut -d' ' -f3)" "$(rustc --version | cut -d' ' -f1,2)" "$(date -u +%F)"; }
