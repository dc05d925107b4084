{{/* The environment of the node-agent. */}}
{{- define "hami.variables.node-agent" -}}
{{- $v := .Values.devicePlugin }}
{{- $kubelet := dir $v.pluginPath }}
{{- include "hami.environment" (list . "node-agent") | nindent 0 }}
- name: HAMI_NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
- {name: HAMI_PROBES, value: nvml}
- {name: HAMI_HEALTH_LISTEN, value: "0.0.0.0:9394"}
- {name: HAMI_KUBELET_DIR, value: {{ $kubelet }}}
- {name: HAMI_HOOK_PATH, value: {{ .Values.global.gpuHookPath }}}
- {name: HAMI_NODE_CONFIG, value: /config/config.json}
{{- if $v.installLibrary }}
- {name: HAMI_LIBRARY_DIR, value: /library}
{{- end }}
{{- if $v.nvidiaDriverRoot }}
- {name: HAMI_DRIVER_ROOT, value: /driver-root}
{{- end }}
- {name: DEVICE_LIST_STRATEGY, value: {{ $v.deviceListStrategy | quote }}}
- {name: DEVICE_ID_STRATEGY, value: {{ $v.deviceIDStrategy }}}
- {name: PASS_DEVICE_SPECS, value: {{ $v.passDeviceSpecsEnabled | quote }}}
{{- range $variable, $said := dict "GDRCOPY_ENABLED" $v.gdrcopyEnabled "GDS_ENABLED" $v.gdsEnabled "MOFED_ENABLED" $v.mofedEnabled }}
{{- if kindIs "bool" $said }}
- {name: {{ $variable }}, value: {{ $said | quote }}}
{{- end }}
{{- end }}
- {name: HAMI_LEGACY_METRICS, value: {{ .Values.legacyMetrics | quote }}}
# what the nvidia runtime gives us: every card, the driver's library, MIG's files
- {name: NVIDIA_VISIBLE_DEVICES, value: all}
- {name: NVIDIA_DRIVER_CAPABILITIES, value: utility}
- {name: NVIDIA_MIG_MONITOR_DEVICES, value: all}
{{- if include "hami.makesMig" . }}
- {name: NVIDIA_MIG_CONFIG_DEVICES, value: all}
{{- end }}
{{- end -}}
