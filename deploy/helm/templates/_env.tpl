{{/* Environment variables that the chart sets. A variable must precede those that contain it. */}}
{{- define "sse-gateway.env" -}}
{{- $secret := include "sse-gateway.secret" . -}}
{{- $redis := .Values.redis -}}
{{- if .Values.secretKeys.ticketSecret }}
# A file, because a changed file is reloaded without a restart.
- name: SSE_GATEWAY__TICKETS__SECRET_FILE
  value: /secrets/ticket-secret
{{- end }}
{{- if $redis.hosts }}
{{- with $redis.password }}
{{- if .key }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .secret | default $secret }}
      key: {{ .key }}
{{- end }}
{{- end }}
- name: SSE_GATEWAY__REDIS__URL
  value: {{ include "sse-gateway.redisUrl" . | quote }}
{{- else }}
# Required: without the Secret the container does not start, and the events of the pod contain the
# reason.
- name: SSE_GATEWAY__REDIS__URL
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ .Values.secretKeys.redisUrl }}
{{- end }}
{{- with $redis.sentinel.username }}
- name: SSE_GATEWAY__REDIS__SENTINEL_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- with $redis.sentinel.password }}
{{- if .key }}
- name: SSE_GATEWAY__REDIS__SENTINEL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .secret | default $secret }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- if $redis.tls.ca.secret }}
- name: SSE_GATEWAY__REDIS__TLS__CA_FILE
  value: /redis-ca/ca.crt
{{- end }}
{{- if $redis.tls.certificateSecret }}
- name: SSE_GATEWAY__REDIS__TLS__CERTIFICATE_FILE
  value: /redis-certificate/tls.crt
- name: SSE_GATEWAY__REDIS__TLS__KEY_FILE
  value: /redis-certificate/tls.key
{{- end }}
{{- if .Values.tlsSecret }}
- name: SSE_GATEWAY__SERVER__TLS__CERTIFICATE
  value: /certificate/tls.crt
- name: SSE_GATEWAY__SERVER__TLS__KEY
  value: /certificate/tls.key
{{- end }}
# IPv6 and IPv4. Probes and Prometheus connect from outside the pod.
- name: SSE_GATEWAY__SERVER__LISTEN
  value: "[::]:8080"
- name: SSE_GATEWAY__ADMIN__LISTEN
  value: "[::]:9090"
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sse-gateway.mounts" -}}
- name: config
  mountPath: /etc/sse-gateway
  readOnly: true
{{- if .Values.secretKeys.ticketSecret }}
# No subPath: Kubernetes would never update the file.
- name: secrets
  mountPath: /secrets
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.ca.secret }}
- name: redis-ca
  mountPath: /redis-ca
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.certificateSecret }}
- name: redis-certificate
  mountPath: /redis-certificate
  readOnly: true
{{- end }}
{{- if .Values.tlsSecret }}
- name: certificate
  mountPath: /certificate
  readOnly: true
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets are owned by root and readable by the group set with fsGroup. */}}
{{- define "sse-gateway.volumes" -}}
- name: config
  configMap:
    name: {{ include "sse-gateway.fullname" . }}
{{- with .Values.secretKeys.ticketSecret }}
- name: secrets
  secret:
    secretName: {{ include "sse-gateway.secret" $ }}
    defaultMode: 0440
    items:
      - key: {{ . }}
        path: ticket-secret
{{- end }}
{{- with .Values.redis.tls.ca }}
{{- if .secret }}
- name: redis-ca
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.redis.tls.certificateSecret }}
- name: redis-certificate
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.tlsSecret }}
- name: certificate
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
