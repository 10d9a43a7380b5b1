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

{{- define "retain.pullSecrets" -}}
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}

{{/* Airflow's image, as its own chart is told of it. */}}
{{- define "retain.airflowImage" -}}
{{- $image := .Values.airflow.images.airflow -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag }}{{ end }}
{{- end }}

{{/* A schedule whose H is a minute that the name alone decides. */}}
{{- define "retain.schedule" -}}
{{- $minute := mod (adler32sum .name | int64) 60 -}}
{{- .schedule | replace "H" (toString $minute) }}
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
