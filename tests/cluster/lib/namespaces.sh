# The namespaces a cluster lives in, and how it leaves the machine as it found it.
# shellcheck shell=bash
SYSCTLS="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes"

MOUNT_POINTS="/var/lib/kubelet /var/lib/containerd /var/lib/cni"

init_main() { # pid 1 of the node: everything else in the node dies with it
  mount --make-rshared /
  mount -t tmpfs tmpfs /run && mkdir -p /run/lock /run/netns
  local d; for d in kubelet containerd cni; do mount --bind "$S/var/lib/$d" "/var/lib/$d"; done
  mount --bind "$S/var/log" /var/log
  ip link set lo up
  touch "$S/init-done"
  while :; do sleep 3600 & wait $! || :; done
}

remember() { # what `down` of the last cluster restores
  [ -d "$BEFORE" ] && return
  mkdir -p "$BEFORE"
  # shellcheck disable=SC2086
  sysctl $SYSCTLS >"$BEFORE/sysctls" 2>/dev/null || :
  local d; for d in $MOUNT_POINTS; do [ -d "$d" ] || echo "$d" >>"$BEFORE/folders"; done
  mountpoint -q /run/netns || touch "$BEFORE/no-netns"
}
restore() {
  [ -d "$BEFORE" ] || return 0
  [ -z "$(ls -A "$HOME_DIR/run" 2>/dev/null)" ] || return 0
  sysctl -q -p "$BEFORE/sysctls" 2>/dev/null || :
  local d; while read -r d; do rmdir "$d" 2>/dev/null || :; done < <(cat "$BEFORE/folders" 2>/dev/null)
  if [ -e "$BEFORE/no-netns" ] && [ -z "$(ls -A /run/netns 2>/dev/null)" ]; then umount /run/netns && rmdir /run/netns || :; fi
  rm -r "$BEFORE"
}

namespaces() {
  mkdir -p "$S"/{log,pki,etcd,dns,relay,cni,images,var/lib/kubelet,var/lib/containerd,var/lib/cni,var/log}
  : >"$S/daemons"; : >"$S/hostpids"; : >"$S/relays"
  remember
  # shellcheck disable=SC2086
  mkdir -p $MOUNT_POINTS # each time: whoever else uses these may have removed them since
  setsid unshare --net --mount --pid --fork --kill-child --mount-proc "$HERE/cluster" __init "$S" >"$S/log/init.log" 2>&1 </dev/null 9>&- &
  local u=$! ip
  wait_for 10 namespaces test -e "$S/init-done"
  pgrep -P $u >"$S/pid"
  ip netns attach "$NAME" "$(init_pid)"; ip netns add "$OUT"
  ip link add up0 netns "$NAME" type veth peer name up1 netns "$OUT"
  ip -n "$NAME" addr add "$NODE_IP/24" dev up0; ip -n "$NAME" link set up0 up
  ip -n "$OUT" link set lo up; ip -n "$OUT" link set up1 up
  ip -n "$OUT" addr add "$GATEWAY/24" dev up1
  for ip in $OUTSIDE_IPS; do ip -n "$OUT" addr add "$ip/32" dev up1; done
  ip -n "$NAME" route add default via "$GATEWAY"
  ip -n "$OUT" route add "$POD_CIDR" via "$NODE_IP"
  in_node sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables' 2>/dev/null || :
  local listen=(); for ip in $OUTSIDE_IPS; do listen+=("$ip:80" "$ip:443"); done
  start_host outside nsenter --net="/run/netns/$OUT" -- env "RUN=$S" "$BIN/clusterd" hello "${listen[@]}"
}

down() {
  [ -d "$S" ] || { echo "cluster $NAME is not up"; return; }
  local p h i c
  while read -r h; do ! ours_or_outside "$h" || kill "$h" 2>/dev/null || :; done < <(cat "$S/hostpids" 2>/dev/null)
  p=$(init_pid) || p=
  if ours "$p"; then # takes the whole pid namespace and its mounts along
    kill -9 "$p"; while [ -d "/proc/$p" ]; do sleep 0.05; done
  fi
  for i in "$NAME" "$OUT"; do # and whatever tests left running in its networks
    [ -e "/run/netns/$i" ] || continue
    for h in $(ip netns pids "$i" 2>/dev/null); do kill -9 "$h" 2>/dev/null || :; done
    ip netns del "$i" || :
  done
  for i in $(seq 50); do
    c=$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$CG")
    [ -n "$c" ] || break
    # shellcheck disable=SC2086
    find $c -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
  done
  rm -rf "$HOME_DIR/last-logs-$NAME"; mv "$S/log" "$HOME_DIR/last-logs-$NAME" 2>/dev/null || :
  for i in $(seq 20); do rm -rf --one-file-system "$S" 2>/dev/null && break; sleep 0.1; done
  restore
  say "cluster $NAME is down; its logs: $HOME_DIR/last-logs-$NAME"
}
# A host daemon is ours when its command line names the state folder, or when it lives in the outside.
ours_or_outside() { ours "$1" || { [ -e "/run/netns/$OUT" ] && [ "/proc/$1/ns/net" -ef "/run/netns/$OUT" ]; }; }
