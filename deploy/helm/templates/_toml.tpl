{{/*
A table of TOML: `table`, and its `path`. JSON of strings, numbers, booleans and lists is TOML.
Not `toToml`, which writes integers as floats.
*/}}
{{- define "sse-gateway.toml" -}}
{{- $path := .path -}}
{{- $tables := dict -}}
{{- range $key, $value := .table -}}
{{- if kindIs "map" $value -}}
{{- $_ := set $tables $key $value -}}
{{- else if and (kindIs "slice" $value) (kindIs "map" (first $value)) -}}
{{- $_ := set $tables $key $value -}}
{{- else if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toRawJson $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := $tables -}}
{{- $name := empty $path | ternary $key (printf "%s.%s" $path $key) -}}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "sse-gateway.toml" (dict "path" $name "table" $value) -}}
{{- else -}}
{{- range $value }}

[[{{ $name }}]]
{{- include "sse-gateway.toml" (dict "path" $name "table" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
