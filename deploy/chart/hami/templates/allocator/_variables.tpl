{{/* The environment of the allocator. */}}
{{- define "hami.variables.allocator" -}}
{{- include "hami.environment" (list . "allocator") | nindent 0 }}
- name: HAMI_HEALTH_LISTEN
  value: {{ .Values.scheduler.metricsBindAddress | quote }}
{{- include "hami.environment.admission" . | nindent 0 }}
- name: HAMI_NODE_SCHEDULER_POLICY
  value: {{ .Values.scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy }}
- name: HAMI_GPU_SCHEDULER_POLICY
  value: {{ .Values.scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy | quote }}
{{- with .Values.scheduler.nodeLabelSelector }}
- name: HAMI_NODE_LABEL_SELECTOR
  value: {{ $pairs := list }}{{ range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}{{ join "," $pairs | quote }}
{{- end }}
- name: HAMI_NODE_LOCK_TIMEOUT
  value: {{ .Values.scheduler.nodeLockExpire }}
- name: HAMI_LEASE_NAMESPACE
  value: {{ include "hami.namespace" . }}
- name: HAMI_LEGACY_METRICS
  value: {{ .Values.legacyMetrics | quote }}
{{- end -}}
