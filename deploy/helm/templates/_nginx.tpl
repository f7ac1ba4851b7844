{{/* Whether the Ingress needs the fallback Service of ingress-nginx: true or nothing. */}}
{{- define "sse-gateway.hasFallback" -}}
{{- and .Values.ingress.enabled (eq .Values.ingress.controller "nginx") | ternary "true" "" -}}
{{- end -}}

{{/* Annotations of ingress-nginx for streams. */}}
{{- define "sse-gateway.nginxAnnotations" -}}
nginx.ingress.kubernetes.io/proxy-http-version: "1.1"
nginx.ingress.kubernetes.io/proxy-buffering: "off"
# Seconds between two frames. server.heartbeat is 15.
nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"
nginx.ingress.kubernetes.io/proxy-send-timeout: "60"
# The query contains the ticket.
nginx.ingress.kubernetes.io/enable-access-log: "false"
# While Redis is unavailable, no pod is ready. Instead of a 503, after which a native EventSource
# does not reconnect, send requests to the pods anyway: they respond with 200 and `sse.busy`.
nginx.ingress.kubernetes.io/default-backend: {{ include "sse-gateway.fullname" . }}-alive
{{- if .Values.tlsSecret }}
nginx.ingress.kubernetes.io/backend-protocol: HTTPS
{{- end }}
{{- end -}}
