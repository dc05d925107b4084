{{/* Whether objects of the Prometheus operator are wanted; called with (list $ kind). */}}
{{- define "hami.monitored" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.prometheus.enabled -}}
{{- if or $root.Values.prometheus.assumeCRDs ($root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 1))) }}true{{ end -}}
{{- end -}}
{{- end -}}
