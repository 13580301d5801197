{{/* What the pods are selected by; it can never change. */}}
{{- define "gomodcache-operator.selectorLabels" -}}
app.kubernetes.io/name: gomodcache
app.kubernetes.io/component: operator
{{- end }}

{{- define "gomodcache-operator.labels" -}}
{{ include "gomodcache-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* A list of the root and of labels of the user's, of which none replaces ours. */}}
{{- define "gomodcache-operator.labelsAnd" -}}
{{ toYaml (merge (include "gomodcache-operator.labels" (index . 0) | fromYaml) (index . 1)) }}
{{- end }}

{{/* A list of the image's name among the values, its values, and the chart's version. */}}
{{- define "gomodcache-operator.reference" -}}
{{- $name := index . 0 }}{{ $image := index . 1 -}}
{{- if not (regexMatch "^[A-Za-z0-9._-]+(:[0-9]+)?(/[a-z0-9._-]+)*$" $image.repository) }}
{{- fail (printf "%s.repository must be an image's name without tag or scheme, such as registry.corp.example/gomodcache; a tag goes into %s.tag" $name $name) }}
{{- end }}
{{- if $image.digest }}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" $image.digest) }}
{{- fail (printf "%s.digest must be sha256: and 64 hexadecimal digits" $name) }}
{{- end }}
{{- $image.repository }}@{{ $image.digest }}
{{- else }}
{{- $image.repository }}:{{ $image.tag | default (index . 2) }}
{{- end }}
{{- end }}

{{- define "gomodcache-operator.image" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is required: where your nodes pull the image that `make image PROFILE=release` builds, such as registry.corp.example/gomodcache" }}
{{- end }}
{{- include "gomodcache-operator.reference" (list "image" .Values.image .Chart.AppVersion) }}
{{- end }}

{{- define "gomodcache-operator.proxyImage" -}}
{{- if .Values.proxyImage.repository }}
{{- include "gomodcache-operator.reference" (list "proxyImage" .Values.proxyImage .Chart.AppVersion) }}
{{- else if or .Values.proxyImage.tag .Values.proxyImage.digest }}
{{- fail "proxyImage.tag and proxyImage.digest go with proxyImage.repository, which is empty: set it, to image.repository if it is the same" }}
{{- else }}
{{- include "gomodcache-operator.image" . }}
{{- end }}
{{- end }}

{{/* The operator's settings: GOPROXY, GOSUMDB. A refusal never shows the value, which may hold a password. */}}
{{- define "gomodcache-operator.settings" -}}
{{- if not .Values.goproxy }}
{{- fail "goproxy is required: the upstreams of a cache that names none; use the output of `go env GOPROXY`, as in --set-literal goproxy=\"$(go env GOPROXY)\"" }}
{{- end }}
{{- if not .Values.gosumdb }}
{{- fail "gosumdb is required: the checksum database, or off; use the output of `go env GOSUMDB`, as in --set-literal gosumdb=\"$(go env GOSUMDB)\"" }}
{{- end }}
{{- range $name := list "goproxy" "gosumdb" }}
{{- if regexMatch "://[^/?#,|]*@" (get $.Values $name) }}
{{- fail (printf "%s must not carry a user name or password; name such an upstream in spec.upstreams of each cache, with credentialsRef" $name) }}
{{- end }}
{{- end }}
GOPROXY: {{ .Values.goproxy | quote }}
GOSUMDB: {{ .Values.gosumdb | quote }}
{{- with .Values.redirectHosts }}
GOMODCACHE_REDIRECT_HOSTS: {{ join "," . | quote }}
{{- end }}
{{- with .Values.internalHosts }}
GOMODCACHE_INTERNAL_HOSTS: {{ join "," . | quote }}
{{- end }}
{{- if ne (toString .Values.maxConcurrentRollouts) "1" }}
GOMODCACHE_MAX_CONCURRENT_ROLLOUTS: {{ .Values.maxConcurrentRollouts | quote }}
{{- end }}
{{- if ne .Values.rolloutDeadline "5m" }}
GOMODCACHE_ROLLOUT_DEADLINE: {{ .Values.rolloutDeadline | quote }}
{{- end }}
{{- with .Values.monitoringNamespaces }}
GOMODCACHE_MONITORING_NAMESPACES: {{ join "," . | quote }}
{{- end }}
{{- end }}
