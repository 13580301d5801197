# What runs pods: scheduler, containerd, kubelet, kube-proxy, network policy, volumes, DNS.
# shellcheck shell=bash
cgroups() {
  local c
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2
    mkdir -p "/sys/fs/cgroup/$CG"
    tr " " "\n" </sys/fs/cgroup/cgroup.controllers | while read -r c; do echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || :; done
    return
  fi
  for c in /sys/fs/cgroup/{cpu,cpuacct,cpuset,memory,devices,freezer,blkio,pids,systemd}; do mkdir -p "$c/$CG"; done
  for c in cpus mems; do cat /sys/fs/cgroup/cpuset/cpuset.$c >"/sys/fs/cgroup/cpuset/$CG/cpuset.$c"; done
}

runtime() {
  cat >"$S/cni/10-bridge.conflist" <<Y
{"cniVersion":"1.0.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
Y
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE no container starts otherwise.
  cat >"$S/containerd.toml" <<Y
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$(full_name localhost/busybox:test)"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$S/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
Y
  start containerd containerd --config "$S/containerd.toml"
  wait_for 30 containerd in_node ctr version
  load_image localhost/busybox:test /bin/busybox
}

kubelet() {
  # Eviction thresholds are absolute: the default's share of a large disk is gigabytes, and the node shares the machine's.
  # A running pod sees a changed Secret or ConfigMap within one sync period and 3 s. The kubelet's own
  # default is 1 minute; 5 s makes tests bearable. KUBELET_EXTRA= (empty) gives the default back.
  cat >"$S/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$CG
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $S/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $S/pki/kubelet-serving.crt
tlsPrivateKeyFile: $S/pki/kubelet-serving.key
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: ""
volumePluginDir: /var/lib/kubelet/flex
evictionHard: {memory.available: 100Mi, nodefs.available: 256Mi, imagefs.available: 256Mi}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 5s
${KUBELET_EXTRA-syncFrequency: 5s}
Y
  start kubelet "$BIN/kubelet" --config="$S/kubelet.yaml" --kubeconfig="$S/kubelet.kubeconfig" \
    --hostname-override=node --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet
}

network() {
  cat >"$S/kube-proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $S/kube-proxy.kubeconfig}
hostnameOverride: node
clusterCIDR: $POD_CIDR
mode: iptables
conntrack: {maxPerCore: 0}
Y
  start kube-proxy "$BIN/kube-proxy" --config="$S/kube-proxy.yaml"
  # shellcheck disable=SC2086
  start netpol "$BIN/clusterd" netpol --kubeconfig "$S/admin.kubeconfig" ${NETPOL_ARGS:-}
}

volumes() { # XFS images on loop devices: sizes are real, volumes can grow
  local sock=/var/lib/kubelet/plugins/loop.gomodcache.test/csi.sock
  start csi "$BIN/clusterd" csi "$S/images"
  wait_for 10 "the CSI driver" in_node test -S $sock
  start csi-provisioner "$BIN/csi-provisioner" --csi-address=$sock --kubeconfig="$S/admin.kubeconfig"
  start csi-resizer "$BIN/csi-resizer" --csi-address=$sock --kubeconfig="$S/admin.kubeconfig"
}

node() {
  cgroups
  start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$S/scheduler.kubeconfig" --leader-elect=false
  runtime
  kubelet
  network
  load_image localhost/coredns:test "$BIN/coredns"
  hosts_file
  sed "s|@RUN@|$S|" "$HERE/addons.yaml" | kc apply -f - >/dev/null
  volumes
  wait_for 120 "the node" kc get node node
  kc wait --for=condition=Ready node/node --timeout=120s >/dev/null; say "node ready"
  kc -n kube-system rollout status deploy/coredns --timeout=120s >/dev/null; say "DNS ready"
}
