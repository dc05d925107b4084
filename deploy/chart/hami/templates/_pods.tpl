{{/* What the pods of all workloads have in common. */}}

{{/* An image; called with (list $ image-values default-tag). */}}
{{- define "hami.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry -}}
{{- $name := printf "%s:%s" $image.repository (default (index . 2) $image.tag) -}}
{{- if $registry }}{{ printf "%s/%s" $registry $name }}{{ else }}{{ $name }}{{ end -}}
{{- end -}}

{{/* One of our services' images; called with (list $ image-values path-of-the-values). */}}
{{- define "hami.ours" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if regexMatch "(^|/)projecthami/hami$" $image.repository -}}
{{- fail (printf "%s.image.repository is %s, HAMi's own image, which holds none of our services: leave it out, or name your copy of the image that values.yaml names" (index . 2) $image.repository) -}}
{{- end -}}
image: {{ include "hami.image" (list $root $image (default $root.Chart.AppVersion $root.Values.global.imageTag)) }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{/* imagePullSecrets; called with (list $ pull-secrets…). Both forms of Kubernetes' charts are taken: names, and maps. */}}
{{- define "hami.pullSecrets" -}}
{{- $names := list -}}
{{- range $secrets := prepend (rest .) (index . 0).Values.global.imagePullSecrets -}}
{{- range $secrets }}{{ $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) }}{{ end -}}
{{- end -}}
{{- with uniq $names }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "hami.pod.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hami.container.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where the pods of scheduler, webhook and allocator may run; called with (list $ component). */}}
{{- define "hami.placement" -}}
{{- $root := index . 0 -}}
priorityClassName: system-node-critical
{{- with $root.Values.scheduler.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.scheduler.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "hami.selector" . | nindent 14 }}
{{- end -}}

{{/* Labels and annotations of a pod template; called with (list $ component annotations). The webhook never sees them. */}}
{{- define "hami.pod.metadata" -}}
labels:
  {{- include "hami.labels" . | nindent 2 }}
  hami.io/webhook: ignore
annotations:
  checksum/hami-scheduler-device-config: {{ include "hami.deviceConfig" (index . 0) | sha256sum }}
  {{- with index . 2 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Environment of every service: the bus, the device config, logs and traces; called with (list $ nats-user). */}}
{{- define "hami.environment" -}}
{{- $root := index . 0 -}}
{{- $user := index . 1 -}}
{{- $nats := $root.Values.nats -}}
- name: HAMI_DEVICE_CONFIG
  value: /etc/hami/device-config.yaml
- name: HAMI_LOG_LEVEL
  value: {{ $root.Values.logLevel }}
{{- if $nats.enabled }}
- name: HAMI_NATS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "hami.fullname" $root }}-nats, key: {{ $user }}}
- name: HAMI_NATS_URL
  value: nats://{{ $user }}:$(HAMI_NATS_PASSWORD)@{{ include "hami.fullname" $root }}-nats.{{ include "hami.namespace" $root }}.svc:4222
{{- else }}
- name: HAMI_NATS_URL
  value: {{ $nats.external.url | quote }}
{{- if $nats.external.credsSecret }}
- name: HAMI_NATS_CREDS
  value: /etc/nats/creds/{{ $user }}.creds
{{- end }}
{{- if $nats.external.caSecret }}
- name: HAMI_NATS_CA
  value: /etc/nats/ca/ca.crt
{{- end }}
{{- end }}
{{- with $root.Values.telemetry.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/*
A container's environment: the chart's own, as text, and what the values add, which replaces what has its name: Helm's
server-side apply takes no name twice. HAMi's values write it as a list of entries or as a map. Called with (list text more).
*/}}
{{- define "hami.variables" -}}
{{- $more := index . 1 -}}
{{- if kindIs "map" $more -}}
{{- $entries := list -}}
{{- range $name, $value := $more }}{{ $entries = append $entries (dict "name" $name "value" (toString $value)) }}{{ end -}}
{{- $more = $entries -}}
{{- end -}}
{{- $replaced := dict -}}
{{- range $more }}{{ $_ := set $replaced .name true }}{{ end -}}
{{- $all := list -}}
{{- range fromYamlArray (index . 0) }}{{ if not (hasKey $replaced .name) }}{{ $all = append $all . }}{{ end }}{{ end -}}
{{- toYaml (concat $all ($more | default list)) -}}
{{- end -}}

{{/* Arguments less those that only HAMi's programs know: their log levels. */}}
{{- define "hami.extraArgs" -}}
{{- $kept := list -}}
{{- range . }}{{ if not (regexMatch "^--?(v=\\d+|debug)$" .) }}{{ $kept = append $kept . }}{{ end }}{{ end -}}
{{- with $kept }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "hami.mounts" -}}
- {name: device-config, mountPath: /etc/hami, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if not .Values.nats.enabled }}
{{- if .Values.nats.external.credsSecret }}
- {name: nats-creds, mountPath: /etc/nats/creds, readOnly: true}
{{- end }}
{{- if .Values.nats.external.caSecret }}
- {name: nats-ca, mountPath: /etc/nats/ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* Called with (list $ nats-user): a pod gets its own user's credentials alone. */}}
{{- define "hami.volumes" -}}
{{- $root := index . 0 -}}
- name: device-config
  configMap: {name: {{ include "hami.fullname" $root }}-scheduler-device}
- name: tmp
  emptyDir: {}
{{- if not $root.Values.nats.enabled }}
{{- with $root.Values.nats.external.credsSecret }}
- name: nats-creds
  secret:
    secretName: {{ . }}
    items: [{key: {{ index $ 1 }}.creds, path: {{ index $ 1 }}.creds}]
{{- end }}
{{- with $root.Values.nats.external.caSecret }}
- name: nats-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Liveness and readiness on a plain HTTP port; called with the port's name. */}}
{{- define "hami.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* What webhook and allocator must agree on, so that both take the same pods for theirs. */}}
{{- define "hami.environment.admission" -}}
- name: HAMI_SCHEDULER_NAME
  value: {{ .Values.schedulerName }}
- name: HAMI_FORCE_OVERWRITE_DEFAULT_SCHEDULER
  value: {{ .Values.scheduler.forceOverwriteDefaultScheduler | quote }}
{{ include "hami.environment.vendors" . }}
{{- end -}}

{{- define "hami.environment.vendors" -}}
- name: HAMI_ENABLE_ASCEND
  value: {{ .Values.devices.ascend.enabled | quote }}
- name: HAMI_ENABLE_ILUVATAR
  value: {{ .Values.devices.iluvatar.enabled | quote }}
{{- end -}}

{{- define "hami.allocator.port" -}}
{{- splitList ":" .Values.scheduler.metricsBindAddress | last -}}
{{- end -}}
