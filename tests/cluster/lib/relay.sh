# Relays: the only ways out of the cluster, one for each upstream host and port that a test allows.
# The host's real name gets an address in the outside; bytes that go there come out at the target,
# seen from the machine itself. TLS stays end to end. $S/relays: HOST PORT ADDRESS TARGET ID PIDS.
# shellcheck shell=bash
hosts_file() { # what CoreDNS answers for names of the outside
  { echo "203.0.113.10 outside.test"; echo "198.51.100.10 other.outside.test"
    awk '{print $3, $1}' "$S/relays" | sort -u; } >"$S/dns/.new"
  mv "$S/dns/.new" "$S/dns/hosts"
}

resolves() { [ "$(in_node "$BIN/clusterd" lookup "$DNS_IP" "$1")" = "$2" ]; }
listens() { [ -n "$(nsenter --net="/run/netns/$OUT" -- ss -Hltn "src $1 and sport = :$2")" ]; }   # (a trial connection would go upstream)

relay_add() { # HOST[:PORT] [TARGET]: prints the address
  local host=${1%:*} port=443 target addr id a b
  [[ $1 != *:* ]] || port=${1##*:}
  target=${2:-$host:$port}
  [[ $host =~ ^[a-zA-Z0-9.-]+$ && $port =~ ^[0-9]+$ && $target =~ :[0-9]+$ ]] || die "relay add HOST[:PORT] [TARGETHOST:PORT]"
  if awk -v h="$host" -v p="$port" -v t="$target" '$1==h && $2==p && $4==t {f=1} END{exit !f}' "$S/relays"; then
    awk -v h="$host" '$1==h {print $3; exit}' "$S/relays"; return
  fi
  addr=$(awk -v h="$host" '$1==h {print $3; exit}' "$S/relays")
  relay_remove "$host:$port"
  if [ -z "$addr" ]; then
    addr=$RELAY_NET.$(awk -v n="$RELAY_FIRST" '{split($3,a,"."); if (a[4]>=n) n=a[4]+1} END{print n}' "$S/relays")
    ip -n "$OUT" addr replace "$addr/32" dev up1
  fi
  id=$(($(cat "$S/relay/last" 2>/dev/null || echo 0) + 1)); echo $id >"$S/relay/last"
  start_host relay "$BIN/clusterd" relay "unix:$S/relay/$id.sock" "tcp:$target"; a=$STARTED
  wait_for 10 "the relay's socket" test -S "$S/relay/$id.sock"
  start_host relay nsenter --net="/run/netns/$OUT" -- "$BIN/clusterd" relay "tcp:$addr:$port" "unix:$S/relay/$id.sock"; b=$STARTED
  echo "$host $port $addr $target $id $a $b" >>"$S/relays"
  hosts_file
  wait_for 10 "the relay at $addr:$port" listens "$addr" "$port"
  [ "$(cat "$S/level")" != node ] || wait_for 20 "$host in DNS" resolves "$host" "$addr"
  echo "$addr"
}

relay_remove() { # HOST[:PORT]
  local host=${1%:*} port=443 h p id a b pid
  [[ $1 != *:* ]] || port=${1##*:}
  while read -r h p _ _ id a b; do
    [ "$h:$p" = "$host:$port" ] || continue
    for pid in $a $b; do ! ours "$pid" || kill "$pid" || :; done
    rm -f "$S/relay/$id.sock"
  done <"$S/relays"
  awk -v h="$host" -v p="$port" '!($1==h && $2==p)' "$S/relays" >"$S/relays.new"; mv "$S/relays.new" "$S/relays"
  hosts_file
}

relay() {
  local h
  case ${1:-list} in
    list) awk '{print $1":"$2, $3, "->", $4}' "$S/relays";;
    add) [ $# -ge 2 ] || die "relay add HOST[:PORT] [TARGET]"; relay_add "$2" "${3:-}";;
    remove) [ $# -eq 2 ] || die "relay remove HOST[:PORT]"; relay_remove "$2";;
    *) for h; do relay_add "$h" ""; done;;
  esac
}
