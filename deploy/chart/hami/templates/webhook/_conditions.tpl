{{/* CEL: whether any container asks for a device, in limits or in requests. */}}
{{- define "hami.asksForDevices" -}}
(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))
.filter(c, has(c.resources)).map(c, c.resources)
.exists(r, [has(r.limits) ? r.limits : {}, has(r.requests) ? r.requests : {}]
.exists(amounts, amounts.exists(name,
{{ include "hami.prefixes" . }}
.exists(prefix, name.startsWith(prefix)))))
{{- end -}}

{{/* What both webhooks have in common; called with (dict "root" $ "bundle" base64-or-empty). */}}
{{- define "hami.webhook.common" -}}
{{- $v := .root.Values.scheduler.admissionWebhook -}}
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
reinvocationPolicy: {{ $v.reinvocationPolicy }}
timeoutSeconds: {{ $v.timeoutSeconds }}
rules:
  - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods], scope: Namespaced}
clientConfig:
  {{- if $v.customURL.enabled }}
  url: https://{{ $v.customURL.host }}:{{ $v.customURL.port }}{{ $v.customURL.path }}
  {{- else }}
  service:
    namespace: {{ include "hami.namespace" .root }}
    name: {{ include "hami.fullname" .root }}-webhook
    path: /webhook
    port: {{ .root.Values.scheduler.service.httpPort }}
  {{- end }}
  {{- with .bundle }}
  caBundle: {{ . }}
  {{- end }}
{{- if $v.manageNamespaceSelector }}
namespaceSelector:
  {{- with $v.namespaceSelector.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  matchExpressions:
    - {key: hami.io/webhook, operator: NotIn, values: [ignore]}
    {{- with $v.whitelistNamespaces }}
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values:
        {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- with $v.namespaceSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
objectSelector:
  {{- with $v.objectSelector.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  matchExpressions:
    - {key: hami.io/webhook, operator: NotIn, values: [ignore]}
    {{- with $v.objectSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
