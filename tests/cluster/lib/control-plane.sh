# etcd, kube-apiserver (with an audit log) and kube-controller-manager.
# shellcheck shell=bash
control_plane() {
  # One line for each finished request, without bodies: who, verb, resource, status. Tests count writes in it.
  cat >"$S/audit-policy.yaml" <<'Y'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
Y
  start etcd "$BIN/etcd" --name test --data-dir "$S/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
  start kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 \
    --advertise-address="$NODE_IP" --service-cluster-ip-range="$SVC_CIDR" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --audit-policy-file="$S/audit-policy.yaml" --audit-log-path="$S/log/audit.log" --audit-log-maxsize=2000 \
    --client-ca-file="$S/pki/ca.crt" --tls-cert-file="$S/pki/apiserver.crt" --tls-private-key-file="$S/pki/apiserver.key" \
    --kubelet-client-certificate="$S/pki/apiserver-kubelet.crt" --kubelet-client-key="$S/pki/apiserver-kubelet.key" \
    --kubelet-certificate-authority="$S/pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$S/pki/sa.key" --service-account-signing-key-file="$S/pki/sa.key"
  if [ "$API_PORT" != 0 ]; then # the host reaches the API server through a unix socket, not through any route
    start api-out socat "UNIX-LISTEN:$S/api.sock,fork" TCP:127.0.0.1:6443
    start_host api-in socat "TCP-LISTEN:$API_PORT,bind=127.0.0.1,reuseaddr,fork" "UNIX-CONNECT:$S/api.sock"
  fi
  wait_for 120 "the API server" kc get --raw /readyz
  say "API server ready"
  start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$S/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials --service-account-private-key-file="$S/pki/sa.key" \
    --root-ca-file="$S/pki/ca.crt" --cluster-signing-cert-file="$S/pki/ca.crt" --cluster-signing-key-file="$S/pki/ca.key" \
    --allocate-node-cidrs --cluster-cidr="$POD_CIDR" --flex-volume-plugin-dir="$S/flex"
}
controllers() {
  wait_for 60 "the default service account" kc -n default get serviceaccount default
  say "controllers at work"
}
