{{/* Names and labels. They are HAMi's, selectors included, so that an upgrade from HAMi changes objects in place. */}}

{{- define "hami.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "hami.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "hami.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "hami.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hami.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* Called with (list $ component). */}}
{{- define "hami.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "hami.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "hami.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "hami.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* metadata of an object; called with (list $ component name), and of a namespaced one with a fourth, true. */}}
{{- define "hami.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
{{- if gt (len .) 3 }}
namespace: {{ include "hami.namespace" $root }}
{{- end }}
labels:
  {{- include "hami.labels" . | nindent 2 }}
{{- end -}}

{{/* The same for workloads and monitors, which carry global.labels and global.annotations too. */}}
{{- define "hami.workload.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ include "hami.namespace" $root }}
labels:
  {{- include "hami.labels" . | nindent 2 }}
  {{- with $root.Values.global.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $root.Values.global.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
