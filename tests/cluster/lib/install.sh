# Debian packages by apt, Kubernetes from source. Everything built carries a stamp: the hash of what
# it was built from. Whatever still has the right stamp is left alone.
# shellcheck shell=bash
KUBE=v1.35.4; CSI_PROVISIONER=v5.3.0; CSI_RESIZER=v1.14.0   # KUBE is in kube/go.mod too

packages() { # LEVEL
  local missing=0 need="socat openssl jq ip nsenter" b
  [ "$1" = node ] && need="$need containerd runc conntrack iptables nft mkfs.xfs /usr/lib/cni/bridge /bin/busybox"
  for b in $need; do command -v "$b" >/dev/null || missing=1; done
  [ $missing = 0 ] && return
  local p="socat openssl jq iproute2 util-linux"
  [ "$1" = node ] && p="$p containerd runc containernetworking-plugins iptables nftables conntrack busybox-static xfsprogs"
  say "installing Debian packages: $p"
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends $p >/dev/null
}

stamp() { # PATH-OR-WORD...: one hash over files, folders, words and the compiler
  { go env GOVERSION GOARCH; echo "$FLAGS"
    local i; for i; do
      if [ -e "$i" ]; then find "$i" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sed "s|$HERE||"; else echo "$i"; fi
    done; } | sha256sum | cut -c1-32
}

build() { # NAME STAMP CMD...
  local n=$1 want=$2 s=$SECONDS; shift 2
  [ -x "$BIN/$n" ] && [ "$(cat "$BIN/.stamps/$n" 2>/dev/null)" = "$want" ] && return
  say "building $n"
  rm -f "$BIN/.stamps/$n"
  "$@" >"$BIN/.stamps/build.log" 2>&1 || { tail -20 "$BIN/.stamps/build.log" >&2; die "building $n failed"; }
  echo "$want" >"$BIN/.stamps/$n"
  say "built $n in $((SECONDS - s)) s"
}
in_folder() ( cd "$1" && shift && "$@" )
in_module() ( # MODULE VERSION COMMAND: these modules have replace lines, so they are built where they are
  cd "$(cd / && go mod download -json "$1@$2" | jq -r .Dir)" || exit
  go build -mod=readonly -ldflags "$FLAGS" -o "$BIN/" "./cmd/$3"
)

install() { # LEVEL
  packages "$1"
  command -v go >/dev/null || die "Go is needed to build Kubernetes"
  mkdir -p "$BIN/.stamps"
  export CGO_ENABLED=0 GOFLAGS=-trimpath GOTOOLCHAIN=local
  local v=k8s.io/component-base/version FLAGS="-s -w" b kube="kube-apiserver kube-controller-manager kubectl" deps plain
  deps="$(stamp "$HERE/kube/go.mod" "$HERE/kube/go.sum")"; plain=$FLAGS
  [ "$1" = node ] && kube="$kube kube-scheduler kubelet kube-proxy"
  FLAGS="-s -w -X $v.gitVersion=$KUBE -X $v.gitMajor=1 -X $v.gitMinor=35 -X $v.gitTreeState=clean"
  for b in $kube; do
    build "$b" "$(stamp "$deps")" in_folder "$HERE/kube" go build -ldflags "$FLAGS" -o "$BIN/" "k8s.io/kubernetes/cmd/$b"
  done
  FLAGS=$plain
  for b in etcd clusterd; do
    build $b "$(stamp "$deps" "$HERE/kube/$b")" in_folder "$HERE/kube" go build -ldflags "$FLAGS" -o "$BIN/" "./$b"
  done
  if [ "$1" = node ]; then
    build coredns "$(stamp "$HERE/dns")" in_folder "$HERE/dns" go build -ldflags "$FLAGS" -o "$BIN/" ./coredns
    build csi-provisioner "$(stamp $CSI_PROVISIONER)" in_module github.com/kubernetes-csi/external-provisioner/v5 $CSI_PROVISIONER csi-provisioner
    build csi-resizer "$(stamp $CSI_RESIZER)" in_module github.com/kubernetes-csi/external-resizer $CSI_RESIZER csi-resizer
  fi
  say "installed for $1 in $BIN"
}
