{{/* Faults that the schema cannot describe. A message names the value, the fault and the fix. */}}
{{- define "sse-gateway.check" -}}
{{- $faults := list -}}
{{- $config := .Values.config -}}
{{- $redis := .Values.redis -}}
{{- $scaling := .Values.autoscaling -}}

{{- range $key, $instead := dict
  "server.listen" "the chart sets it, use service.port"
  "server.tls" "use tlsSecret"
  "admin.listen" "the chart sets it"
  "redis.url" "use redis.hosts, or the key redis-url of the Secret"
  "redis.sentinel_username" "use redis.sentinel.username"
  "redis.sentinel_password" "use redis.sentinel.password"
  "redis.tls" "use redis.tls.ca and redis.tls.certificateSecret"
  "tickets.secret" "put it into the Secret, under the key ticket-secret"
  "tickets.secret_file" "use secretKeys.ticketSecret"
-}}
{{- $parts := splitList "." $key -}}
{{- $section := get $config (first $parts) | default dict -}}
{{- if hasKey $section (last $parts) -}}
{{- $faults = append $faults (printf "config.%s: must not be set; %s" $key $instead) -}}
{{- end -}}
{{- $name := printf "SSE_GATEWAY__%s" ($key | replace "." "__" | upper) -}}
{{- range $.Values.env -}}
{{- if hasPrefix $name .name -}}
{{- $faults = append $faults (printf "env: must not contain %s; %s" .name $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $tickets := $config.tickets | default dict -}}
{{- if not (or .Values.secretKeys.ticketSecret $tickets.jwks_url $tickets.keys) -}}
{{- $faults = append $faults (print "secretKeys.ticketSecret: must not be empty without "
  "config.tickets.jwks_url or config.tickets.keys; set one of them") -}}
{{- end -}}

{{- if and (empty $redis.hosts) (or $redis.tls.enabled $redis.username $redis.password.key
  (ne $redis.deployment "server") $redis.primary $redis.database) -}}
{{- $faults = append $faults (print "redis.hosts: must be set together with the other values of "
  "redis; set it, or put the complete URL into the Secret and remove them") -}}
{{- end -}}
{{- if and (eq $redis.deployment "sentinel") (not $redis.primary) -}}
{{- $faults = append $faults (print "redis.primary: must be set for sentinel; use the name in "
  "`sentinel monitor <name>`") -}}
{{- end -}}
{{- if and (ne $redis.deployment "sentinel") $redis.primary -}}
{{- $faults = append $faults (print "redis.primary: is used only with "
  "redis.deployment=sentinel; set it, or remove redis.primary") -}}
{{- end -}}
{{- if and (eq $redis.deployment "server") (gt (len $redis.hosts) 1) -}}
{{- $faults = append $faults (print "redis.hosts: must be one server; for several, set "
  "redis.deployment to sentinel or cluster") -}}
{{- end -}}
{{- if and (eq $redis.deployment "cluster") $redis.database -}}
{{- $faults = append $faults "redis.database: must be 0, a cluster has only one; remove it" -}}
{{- end -}}
{{- if and $redis.hosts (or $redis.tls.ca.secret $redis.tls.certificateSecret)
  (not $redis.tls.enabled) -}}
{{- $faults = append $faults (print "redis.tls.ca and redis.tls.certificateSecret: are used only "
  "with TLS; set redis.tls.enabled to true") -}}
{{- end -}}
{{- if and $redis.username (not $redis.password.key) -}}
{{- $faults = append $faults (print "redis.username: must be set together with "
  "redis.password.key; set both or neither") -}}
{{- end -}}

{{- with $redis.sentinel -}}
{{- if and .username (not .password.key) -}}
{{- $faults = append $faults "redis.sentinel: must have a password.key for the username; set it" -}}
{{- end -}}
{{- if and (or .username .password.key) (ne $redis.deployment "sentinel") -}}
{{- $faults = append $faults (print "redis.sentinel: is used only with "
  "redis.deployment=sentinel; set it, or remove redis.sentinel") -}}
{{- end -}}
{{- end -}}

{{- range $field, $value := dict
  "containers" "sidecars"
  "initContainers" "initContainers"
  "volumes" "volumes"
  "securityContext" "podSecurityContext"
  "imagePullSecrets" "imagePullSecrets"
  "serviceAccountName" "serviceAccount.name"
  "terminationGracePeriodSeconds" "terminationGracePeriodSeconds"
  "nodeSelector" "nodeSelector"
  "tolerations" "tolerations"
  "affinity" "affinity"
  "topologySpreadConstraints" "topologySpreadConstraints"
  "priorityClassName" "priorityClassName"
-}}
{{- if hasKey $.Values.podSpec $field -}}
{{- $faults = append $faults (printf "podSpec: must not contain %s; use the value %s" $field
  $value) -}}
{{- end -}}
{{- end -}}
{{- range $field := list "automountServiceAccountToken" "enableServiceLinks" -}}
{{- if hasKey $.Values.podSpec $field -}}
{{- $faults = append $faults (printf "podSpec: must not contain %s; the chart sets it to false"
  $field) -}}
{{- end -}}
{{- end -}}

{{- if and .Values.service.nodePort (eq .Values.service.type "ClusterIP") -}}
{{- $faults = append $faults (print "service.nodePort: is used only with service.type=NodePort or "
  "LoadBalancer; set it, or remove service.nodePort") -}}
{{- end -}}
{{- range $field, $instead := dict
  "type" "use service.type"
  "ports" "use service.port and service.nodePort"
  "selector" "the chart sets it"
-}}
{{- if hasKey $.Values.service.spec $field -}}
{{- $faults = append $faults (printf "service.spec: must not contain %s; %s" $field $instead) -}}
{{- end -}}
{{- end -}}

{{- $drain := include "sse-gateway.drain" . | int -}}
{{- if le (include "sse-gateway.terminationGracePeriodSeconds" . | int) (add $drain 10 | int) -}}
{{- $faults = append $faults (printf (print "terminationGracePeriodSeconds: must be more than %d "
  "(config.drain.delay + window + 10 s); increase it, or set it to 0") (add $drain 10)) -}}
{{- end -}}
{{- if le (include "sse-gateway.progressDeadlineSeconds" . | int)
  (include "sse-gateway.minReadySeconds" . | int) -}}
{{- $faults = append $faults (print "progressDeadlineSeconds: must be more than minReadySeconds; "
  "increase it, or set it to 0") -}}
{{- end -}}

{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $faults = append $faults (print "autoscaling.minReplicas: must be at most "
  "autoscaling.maxReplicas; decrease it, or increase the other") -}}
{{- end -}}
{{- if not (or $scaling.cpuUtilization $scaling.streams $scaling.metrics) -}}
{{- $faults = append $faults (print "autoscaling: must have something to scale by; set "
  "cpuUtilization, streams or metrics") -}}
{{- end -}}
{{- end -}}
{{- with .Values.ciliumNetworkPolicy -}}
{{- if and .enabled (empty .egress) (eq "[]" (include "sse-gateway.egressHosts" $)) -}}
{{- $faults = append $faults (print "ciliumNetworkPolicy.hosts: must name the hosts of Redis, "
  "because the URL is in the Secret; set it, or egress") -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ciliumNetworkPolicy.enabled (not .Values.networkPolicy.enabled) -}}
{{- $faults = append $faults (print "networkPolicy.enabled: must be true together with "
  "ciliumNetworkPolicy.enabled, because only the NetworkPolicy closes the admin port; set it to "
  "true, or both to false") -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (empty .Values.httpRoute.parentRefs) -}}
{{- $faults = append $faults (print "httpRoute.parentRefs: must name a Gateway, for example "
  "[{name: public, namespace: gateways}]") -}}
{{- end -}}

{{- if $faults -}}
{{- printf "\n\nThe values have these faults:\n- %s\n" (join "\n- " $faults) | fail -}}
{{- end -}}
{{- end -}}
