{{/* Average number of streams per pod to scale by. The default limit is that of the gateway. */}}
{{- define "sse-gateway.streamsPerPod" -}}
{{- $limits := .Values.config.limits | default dict -}}
{{- $max := $limits.max_connections | default 10000 | int -}}
{{- .Values.autoscaling.streamsPerPod | default (div (mul $max 70) 100) | int -}}
{{- end -}}
