# Certificates and kubeconfigs.
# shellcheck shell=bash
cert() { # NAME SUBJECT [SAN]
  local f=$S/pki/$1
  openssl ecparam -genkey -name prime256v1 -noout -out "$f.key" 2>/dev/null
  openssl req -new -key "$f.key" -subj "$2" -out "$f.csr" 2>/dev/null
  openssl x509 -req -in "$f.csr" -CA "$S/pki/ca.crt" -CAkey "$S/pki/ca.key" -CAcreateserial -days 30 -out "$f.crt" 2>/dev/null \
    -extfile <(printf 'keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}")
}
kubeconf() { # NAME PORT [OUTPUT-NAME]
  cat >"$S/${3:-$1}.kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: $NAME, cluster: {server: "https://127.0.0.1:$2", certificate-authority-data: $(base64 -w0 "$S/pki/ca.crt")}}]
users: [{name: $NAME, user: {client-certificate-data: $(base64 -w0 "$S/pki/$1.crt"), client-key-data: $(base64 -w0 "$S/pki/$1.key")}}]
contexts: [{name: $NAME, context: {cluster: $NAME, user: $NAME}}]
current-context: $NAME
Y
}
pki() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=gomodcache-test-ca \
    -keyout "$S/pki/ca.key" -out "$S/pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$S/pki/sa.key" 2048 2>/dev/null
  cert apiserver /CN=apiserver "IP:127.0.0.1,IP:$NODE_IP,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  cert kubelet-serving /CN=node "IP:$NODE_IP,DNS:node"
  cert admin /O=system:masters/CN=admin
  cert apiserver-kubelet /O=system:masters/CN=apiserver-kubelet
  cert kubelet /O=system:nodes/CN=system:node:node
  local n; for n in controller-manager scheduler; do cert $n "/CN=system:kube-$n"; done
  cert kube-proxy /CN=system:kube-proxy
  for n in admin kubelet controller-manager scheduler kube-proxy; do kubeconf $n 6443; done
  kubeconf admin "$API_PORT" host
}
