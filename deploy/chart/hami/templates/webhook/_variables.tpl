{{/* The environment of the webhook. */}}
{{- define "hami.variables.webhook" -}}
{{- include "hami.environment" (list . "webhook") | nindent 0 }}
- name: HAMI_LISTEN
  value: 0.0.0.0:{{ .Values.scheduler.service.httpTargetPort }}
- name: HAMI_HEALTH_LISTEN
  value: 0.0.0.0:9396
- name: HAMI_TLS_CERT
  value: /tls/tls.crt
- name: HAMI_TLS_KEY
  value: /tls/tls.key
{{- include "hami.environment.admission" . | nindent 0 }}
{{- end -}}
