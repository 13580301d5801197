#!/usr/bin/env bash
# Proves on a running `cluster up --node` that NetworkPolicy, volumes and relays are real. Asks nothing
# of any network but the machine's own loopback. Ends non-zero when a proof fails.
set -euo pipefail
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
C=$HERE/cluster; NS=prove-$$; K="$C kubectl -n $NS"
S=$(dirname "$("$C" kubeconfig)"); failed=0; web=
# shellcheck disable=SC2317
cleanup() {
  "$C" kubectl delete namespace "$NS" --wait=false >/dev/null 2>&1 || :
  "$C" relay remove proof.example:8443 2>/dev/null || :
  [ -z "$web" ] || kill "$web" 2>/dev/null || :
}
trap cleanup EXIT
check() { # WHAT WANTED GOT
  if [ "$2" = "$3" ]; then echo "ok    $1: $3"; else echo "FAILED $1: wanted $2, got $3"; failed=1; fi
}
get() { # POD IP[:PORT]: busybox-static can't look names up, so nc and addresses
  local p=80 h=${2%:*}; [[ $2 != *:* ]] || p=${2#*:}
  if $K exec "$1" -- sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | timeout 1 nc -w 1 $h $p | grep -q ok" >/dev/null 2>&1; then echo yes; else echo no; fi
}
reach() { # POD: pod, service, the two outside addresses, DNS
  local dns=no; ! $K exec "$1" -- timeout 2 nslookup server.$NS.svc.cluster.local >/dev/null 2>&1 || dns=yes
  echo "$(get "$1" "$POD") $(get "$1" "$SVC:8080") $(get "$1" 203.0.113.10) $(get "$1" 198.51.100.10) $dns"
}
settle() { # WANTED POD IP: a policy takes effect in well under a second
  local _; for _ in $(seq 20); do [ "$(get "$2" "$3")" != "$1" ] || return 0; sleep 0.1; done
}
policy() { # NAME SPEC
  $K apply -f - >/dev/null <<<"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: $1}, spec: $2}"
}

"$C" kubectl create namespace "$NS" >/dev/null
until $K get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
$K apply -f - >/dev/null <<'Y'
{apiVersion: v1, kind: Pod, metadata: {name: client, labels: {app: client}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "localhost/busybox:test"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, labels: {app: other}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "localhost/busybox:test"}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "localhost/busybox:test", command: [sh, -c, "mkdir -p /tmp/w; echo pod-ok >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"], ports: [{containerPort: 80, name: http}]}]
---
{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ports: [{port: 8080, targetPort: http}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: data}, spec: {terminationGracePeriodSeconds: 0, securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532},
  containers: [{name: c, image: "localhost/busybox:test", volumeMounts: [{name: d, mountPath: /data}]}], volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}}
Y
$K wait --for=condition=Ready pod --all --timeout=60s >/dev/null
POD=$($K get pod server -o jsonpath='{.status.podIP}'); SVC=$($K get service server -o jsonpath='{.spec.clusterIP}')
settle yes client "$SVC:8080"

echo "reached: pod, service, 203.0.113.10, 198.51.100.10, DNS"
check "no policy" "yes yes yes yes yes" "$(reach client)"
policy deny '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}'
settle no client 203.0.113.10
check "egress denied" "no no no no no" "$(reach client)"
check "another pod" "yes yes yes yes yes" "$(reach other)"
policy allow '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 198.51.100.0/24]}}], ports: [{port: 80}]}]}'
settle yes client 203.0.113.10
check "all but 10/8 and 198.51.100/24" "no no yes no no" "$(reach client)"
policy allow '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{port: http}]}, {to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{port: 53, protocol: UDP}]}]}'
settle yes client "$POD"
check "the server's port and DNS" "yes yes no no yes" "$(reach client)"
policy in '{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}'
settle no other "$POD"
check "ingress from the client only (client, other)" "yes no" "$(get client "$POD") $(get other "$POD")"
$K delete networkpolicy --all >/dev/null
settle yes other "$POD"
check "policies deleted" "yes yes yes yes yes" "$(reach client)"

check "default class binds when used, group owns it" "Bound 65532" "$($K get pvc data -o jsonpath='{.status.phase}') $($K exec data -- stat -c %g /data)"
$K patch pvc data -p '{"spec":{"resources":{"requests":{"storage":"96Mi"}}}}' >/dev/null
for _ in $(seq 150); do [ "$($K get pvc data -o jsonpath='{.status.capacity.storage}')" != 96Mi ] || break; sleep 0.2; done
check "grown while mounted" "96Mi 0" "$($K get pvc data -o jsonpath='{.status.capacity.storage}') $($K get pod data -o jsonpath='{.status.containerStatuses[0].restartCount}')"
full=no; $K exec data -- dd if=/dev/zero of=/data/big bs=1M count=200 >/dev/null 2>&1 || full=yes
check "its size is real" yes $full
$K delete pod data >/dev/null; $K delete pvc data >/dev/null
for _ in $(seq 100); do [ -n "$(ls "$S/images")" ] || break; sleep 0.2; done
check "images left after the claim" 0 "$(find "$S/images" -type f | wc -l)"

"$C" relay remove proof.example:8443
port=$((20000 + RANDOM % 10000))
socat TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork SYSTEM:'echo relay-ok' & web=$!
check "name before the relay" no "$($K exec client -- nslookup proof.example >/dev/null 2>&1 && echo yes || echo no)"
ip=$("$C" relay add proof.example:8443 127.0.0.1:$port)
check "name and bytes through a relay" "yes yes" "$($K exec client -- nslookup proof.example 2>/dev/null | grep -q "$ip" && echo yes || echo no) $(get client "$ip:8443")"
check "another port of that address" no "$(get client "$ip:8444")"
"$C" relay remove proof.example:8443
check "the relay removed" no "$(get client "$ip:8443")"
check "no way out but relays" no "$("$C" exec timeout 1 bash -c ': </dev/tcp/1.1.1.1/443' 2>/dev/null && echo yes || echo no)"
exit $failed
