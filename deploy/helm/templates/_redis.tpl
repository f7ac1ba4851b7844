{{/* URL of `redis.hosts`. Kubernetes replaces $(REDIS_PASSWORD). */}}
{{- define "sse-gateway.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- $redis.tls.enabled | ternary "rediss" "redis" -}}
{{- if ne $redis.deployment "server" }}+{{ $redis.deployment }}{{ end -}}
://
{{- $redis.username -}}
{{- if $redis.password.key -}}:$(REDIS_PASSWORD){{- end -}}
{{- if or $redis.username $redis.password.key -}}@{{- end -}}
{{- join "," $redis.hosts -}}
{{- if eq $redis.deployment "sentinel" }}/{{ $redis.primary }}{{ end -}}
{{- if $redis.database }}/{{ int $redis.database }}{{ end -}}
{{- end -}}

{{/* Ports that the gateway connects to for Redis. */}}
{{- define "sse-gateway.redisPorts" -}}
{{- $redis := .Values.redis -}}
{{- $ports := list -}}
{{- range $redis.hosts -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" -}}
{{- $default := eq $redis.deployment "sentinel" | ternary "26379" "6379" -}}
{{- $ports = append $ports ($port | default $default | int) -}}
{{- end -}}
{{- if or (empty $redis.hosts) (ne $redis.deployment "server") -}}
{{- $ports = concat $ports (list 6379 6380) -}}
{{- end -}}
{{- .Values.networkPolicy.redisPorts | default ($ports | uniq) | toJson -}}
{{- end -}}

{{/* Port of `config.tickets.jwks_url`, or nothing. */}}
{{- define "sse-gateway.issuerPort" -}}
{{- $tickets := .Values.config.tickets | default dict -}}
{{- with $tickets.jwks_url -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default
  (eq $url.scheme "http" | ternary "80" "443") -}}
{{- end -}}
{{- end -}}

{{/* Names of the hosts that the gateway connects to. */}}
{{- define "sse-gateway.egressHosts" -}}
{{- $hosts := list -}}
{{- range .Values.redis.hosts -}}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" . "") -}}
{{- end -}}
{{- $tickets := .Values.config.tickets | default dict -}}
{{- with $tickets.jwks_url -}}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" (urlParse .).host "") -}}
{{- end -}}
{{- .Values.ciliumNetworkPolicy.hosts | default ($hosts | uniq) | toJson -}}
{{- end -}}
