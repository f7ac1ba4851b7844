{{/*
Name of all objects. A release of another name always gets the suffix, so that no two releases of a
namespace have an object of the same name.
*/}}
{{- define "sse-gateway.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = eq .Release.Name "sse-gateway" | ternary .Release.Name
  (printf "%s-sse-gateway" .Release.Name) -}}
{{- end -}}
{{- if gt (len $name) 55 -}}
{{- printf "fullnameOverride: must be set to at most 55 characters, because %q has %d" $name
  (len $name) | fail -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Labels that never change, by which objects select the pods. */}}
{{- define "sse-gateway.selectorLabels" -}}
app.kubernetes.io/name: sse-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of all objects, the pods included. */}}
{{- define "sse-gateway.commonLabels" -}}
app.kubernetes.io/version: {{ include "sse-gateway.version" . | quote }}
app.kubernetes.io/part-of: sse-gateway
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sse-gateway.labels" -}}
{{ include "sse-gateway.selectorLabels" . }}
{{ include "sse-gateway.commonLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A label value: at most 63 characters. */}}
{{- define "sse-gateway.version" -}}
{{- .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-._" -}}
{{- end -}}

{{- define "sse-gateway.image" -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest -}}
@{{ .Values.image.digest }}
{{- else -}}
:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "sse-gateway.secret" -}}
{{- .Values.existingSecret | default (include "sse-gateway.fullname" .) -}}
{{- end -}}

{{- define "sse-gateway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary
  (include "sse-gateway.fullname" .) "default") -}}
{{- end -}}

{{- define "sse-gateway.job" -}}
{{- .Values.job | default (include "sse-gateway.fullname" .) -}}
{{- end -}}
