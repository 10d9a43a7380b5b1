{{/* Names and small parts; what a pod is stands in its own template. */}}

{{- define "retain.labels" -}}
app.kubernetes.io/name: retain
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: retain
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* How every pod of ours runs: `restricted`, and more. */}}
{{- define "retain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "retain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Names of pull secrets, each as a word or as `name: word`: Airflow's chart takes both. */}}
{{- define "retain.pullSecrets" -}}
{{- range . }}
- name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* What every pod of ours gets beside its own: labels and annotations of its metadata. */}}
{{- define "retain.podLabels" -}}
{{- with .Values.pods.labels }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* On which nodes every pod of ours may run. */}}
{{- define "retain.placement" -}}
{{- with .Values.pods.node_selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.tolerations }}
tolerations:
  {{- range . }}
  - {{ include "retain.toleration" . | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- with .Values.pods.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "retain.toleration" -}}
{{- $found := dict }}
{{- range $key, $value := . }}
  {{- $_ := set $found (eq $key "seconds" | ternary "tolerationSeconds" $key) $value }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Variables of every pod of ours: proxies and the like, and whom its TLS believes. */}}
{{- define "retain.env" -}}
{{- range $name, $value := .Values.pods.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- with .Values.pods.authorities }}
{{- $file := printf "/etc/retain/authorities/%s" (.key | default "ca.crt") }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "AWS_CA_BUNDLE" "GIT_SSL_CAINFO" }}
- {name: {{ . }}, value: {{ $file }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "retain.authoritiesMount" -}}
{{- if .Values.pods.authorities }}
- {name: authorities, mountPath: /etc/retain/authorities, readOnly: true}
{{- end }}
{{- end }}

{{- define "retain.authoritiesVolume" -}}
{{- with .Values.pods.authorities }}
- name: authorities
  configMap: {name: {{ .config_map }}, defaultMode: 288}
{{- end }}
{{- end }}

{{/* Airflow's image, as its own chart is told of it. */}}
{{- define "retain.airflowImage" -}}
{{- $image := .Values.airflow.images.airflow -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag }}{{ end }}
{{- end }}

{{/* A schedule whose minute, where it is H, the name alone decides. */}}
{{- define "retain.schedule" -}}
{{- $minute := mod (adler32sum .name | int64) 60 -}}
{{- regexReplaceAll "^H " .schedule (printf "%d " $minute) }}
{{- end }}

{{/* One end of a network policy: a CIDR, or pods of a namespace. */}}
{{- define "retain.peer" -}}
{{- if .cidr -}}
- ipBlock:
    cidr: {{ .cidr }}
{{- else -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .namespace }}
{{- with .pods }}
  podSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Egress rules to a list of places. */}}
{{- define "retain.egress" -}}
{{- range . }}
- to:
    {{- include "retain.peer" . | nindent 4 }}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}
{{- end }}

{{/* Not empty where a step may run on several nodes, as an Indexed Job. */}}
{{- define "retain.severalNodes" -}}
{{- range .Values.profiles }}{{ if gt (int (.nodes | default 1)) 1 }}yes{{ end }}{{ end }}
{{- end }}
