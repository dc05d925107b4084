{{/* The environment of the extender. */}}
{{- define "hami.variables.extender" -}}
{{- include "hami.environment" (list . "extender") | nindent 0 }}
- name: HAMI_LISTEN
  value: 127.0.0.1:8080
- name: HAMI_HEALTH_LISTEN
  value: 0.0.0.0:9397
{{- include "hami.environment.vendors" . | nindent 0 }}
{{- end -}}
