{{/* Seconds of a duration such as `1m30s`, rounded up. */}}
{{- define "sse-gateway.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . | float64 -}}
{{- $sum = addf $sum (mulf $number (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- ceil $sum | int -}}
{{- end -}}

{{/* Seconds from SIGTERM until all streams are closed. The defaults are those of the gateway. */}}
{{- define "sse-gateway.drain" -}}
{{- $drain := .Values.config.drain | default dict -}}
{{- $delay := $drain.delay | default "5s" | include "sse-gateway.seconds" | int -}}
{{- $window := $drain.window | default "20s" | include "sse-gateway.seconds" | int -}}
{{- add $delay $window -}}
{{- end -}}

{{- define "sse-gateway.minReadySeconds" -}}
{{- .Values.minReadySeconds | default (add (include "sse-gateway.drain" .) 5) -}}
{{- end -}}

{{- define "sse-gateway.progressDeadlineSeconds" -}}
{{- .Values.progressDeadlineSeconds | default
  (add (include "sse-gateway.minReadySeconds" .) 270) -}}
{{- end -}}

{{- define "sse-gateway.terminationGracePeriodSeconds" -}}
{{- .Values.terminationGracePeriodSeconds | default (add (include "sse-gateway.drain" .) 20) -}}
{{- end -}}
