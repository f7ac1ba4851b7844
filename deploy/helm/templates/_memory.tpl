{{/* Bytes of a quantity of Kubernetes or of the gateway: 512Mi, 1G, 256MiB. */}}
{{- define "sse-gateway.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $text := toString . | trimSuffix "B" -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- mulf $number (get $units (regexFind "[A-Za-z]*$" $text) | float64) | int64 -}}
{{- end -}}

{{/*
Memory that the settings may need, in MiB: queues, both caches, process and streams
(docs/operations/sizing.md). The defaults are those of the gateway.
*/}}
{{- define "sse-gateway.memoryNeeded" -}}
{{- $limits := .Values.config.limits | default dict -}}
{{- $history := .Values.config.history | default dict -}}
{{- $queues := $limits.queue_bytes_total | default "256MiB" | include "sse-gateway.bytes" -}}
{{- $cache := $history.replay_cache_bytes | default "16MiB" | include "sse-gateway.bytes" -}}
{{- $streams := $limits.max_connections | default 10000 | int64 | mul 16384 -}}
{{- div (add $queues (mul 2 $cache) $streams 33554432) 1048576 -}}
{{- end -}}
