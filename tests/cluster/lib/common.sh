# Names, places and small helpers that every other part uses.
# shellcheck shell=bash disable=SC2034
HOME_DIR=${GOMODCACHE_CLUSTER_HOME:-$HOME/.cache/gomodcache-cluster}
NAME=${GOMODCACHE_CLUSTER_NAME:-gomodcache}
BIN=$HOME_DIR/bin
S=$HOME_DIR/run/$NAME          # all state of this cluster
BEFORE=$HOME_DIR/before        # what the machine was like before the first cluster came up
CG=gomodcache-test-$NAME       # its cgroup
OUT=$NAME-out                  # the outside's network namespace; the cluster's own is $NAME
OCI_ARCHIVE=$HERE/../../deploy/image/oci-archive

# The API server's port on the host's loopback (0: none). Other names than the default get another port.
if [ "$NAME" = gomodcache ]; then default_port=16450; else default_port=$((16451 + $(cksum <<<"$NAME" | cut -d' ' -f1) % 400)); fi
API_PORT=${GOMODCACHE_CLUSTER_API_PORT:-$default_port}

NODE_IP=192.168.77.2; GATEWAY=192.168.77.1
OUTSIDE_IPS="203.0.113.10 198.51.100.10"       # "the internet", for policies that allow one and not the other
RELAY_NET=203.0.113; RELAY_FIRST=20            # relays get .20, .21, ...
POD_CIDR=10.244.0.0/16; SVC_CIDR=10.96.0.0/16; DNS_IP=10.96.0.10

T0=$(date +%s%N)
die() { echo "cluster: $*" >&2; exit 1; }
say() { awk -v a="$(date +%s%N)" -v b="$T0" -v m="$*" 'BEGIN{printf "%6.1fs %s\n", (a-b)/1e9, m}' >&2; }
init_pid() { cat "$S/pid" 2>/dev/null; }
is_up() { [ -s "$S/pid" ] && ours "$(init_pid)"; }
need_up() { is_up || die "cluster $NAME is not up"; }
ours() { # PID: is it a process of this cluster? Its command line names the state folder.
  [ -n "${1:-}" ] && { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF "$S"
}

wait_for() { # SECONDS WHAT CMD...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "timed out waiting for $what (logs: $S/log)"
    sleep 0.1
  done
}

in_node() { nsenter -t "$(init_pid)" -n -m -p -- "$@"; }
start() { # NAME CMD...: a daemon in the node's namespaces; it ends with them
  local n=$1; shift
  setsid nsenter -t "$(init_pid)" -n -m -p -- "$@" >>"$S/log/$n.log" 2>&1 </dev/null 9>&- &
  echo "$n $!" >>"$S/daemons"
}
restart() { # NAME: kills it and starts it as it was started
  local n=$1 p command=()
  p=$(awk -v n="$n" '$1 == n { p = $2 } END { print p }' "$S/daemons")
  [ -n "$p" ] && ours "$p" || die "no daemon $n runs"
  mapfile -d '' command <"/proc/$p/cmdline"
  while [ "${command[0]}" != -- ]; do command=("${command[@]:1}"); done
  pkill -KILL -P "$p"; while [ -d "/proc/$p" ]; do sleep 0.05; done
  sed -i "/^$n $p\$/d" "$S/daemons"
  start "$n" "${command[@]:1}"
}
start_host() { # NAME CMD...: a daemon outside of them, which `down` ends; prints nothing, leaves its id in $STARTED
  local n=$1; shift
  setsid "$@" >>"$S/log/$n.log" 2>&1 </dev/null 9>&- &
  STARTED=$!
  echo "$n $STARTED" >>"$S/daemons"; echo "$STARTED" >>"$S/hostpids"
}
kc() { in_node "$BIN/kubectl" --kubeconfig "$S/admin.kubeconfig" "$@"; }
