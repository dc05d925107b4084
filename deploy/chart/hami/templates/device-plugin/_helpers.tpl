{{/* Whether a node of the node configuration is in MIG mode, so that its agent needs to make instances. */}}
{{- define "hami.makesMig" -}}
{{- if regexMatch "\"operatingmode\"\\s*:\\s*\"mig\"" (lower .Values.devicePlugin.nodeConfiguration.config) }}true{{ end -}}
{{- end -}}
