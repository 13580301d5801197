# Images go into containerd as archives; nothing is ever pulled.
# shellcheck shell=bash
full_name() { "$OCI_ARCHIVE" --print-ref "$1"; }

wrap() { # NAME BINARY OUT: an image around one static binary (busybox: with its applets, and asleep)
  local a args=(--ref "$1" --env PATH=/bin) b; b=$(basename "$2")
  if [ "$b" = busybox ]; then
    for a in $("$2" --list); do [ "$a" = busybox ] || args+=(--symlink "busybox:/bin/$a"); done
    args+=(--cmd "/bin/sleep,2147483647")
  else
    args+=(--entrypoint "/bin/$b")
  fi
  "$OCI_ARCHIVE" "${args[@]}" --add "$2:/bin/$b:0755" "$3"
}

names_in() { # ARCHIVE: the image names that it carries (OCI, or docker save)
  { tar -xOf "$1" index.json 2>/dev/null | jq -r '.manifests[].annotations | .["io.containerd.image.name"] // .["org.opencontainers.image.ref.name"] // empty'; } ||
    tar -xOf "$1" manifest.json | jq -r '.[].RepoTags[]'
}

load_image() { # NAME ARCHIVE|STATIC-BINARY
  local f=$2 want got
  want=$(full_name "$1")
  if [ "$(head -c4 "$2" | tail -c3)" = ELF ]; then f=$S/image.tar; wrap "$1" "$2" "$f"; fi
  got=$(names_in "$f" | head -1); [ -n "$got" ] || die "$2 names no image"
  got=$(full_name "$got")
  in_node ctr -n k8s.io images import - >/dev/null <"$f"
  [ "$got" = "$want" ] || in_node ctr -n k8s.io images tag --force "$got" "$want" >/dev/null
  rm -f "$S/image.tar"
}
