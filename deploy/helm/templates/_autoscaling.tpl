{{/* Average number of streams per pod to scale by. The default limit is that of the gateway. */}}
{{- define "sse-gateway.streamsPerPod" -}}
{{- $limits := .Values.config.limits | default dict -}}
{{- $max := $limits.max_connections | default 10000 | int -}}
{{- .Values.autoscaling.streamsPerPod | default (div (mul $max 70) 100) | int -}}
{{- end -}}

{{/* The same as Kubernetes writes it: 7000 as 7k. */}}
{{- define "sse-gateway.streamsQuantity" -}}
{{- $streams := include "sse-gateway.streamsPerPod" . | int -}}
{{- eq (mod $streams 1000 | int) 0 | ternary (div $streams 1000 | printf "%dk") (print $streams) -}}
{{- end -}}
