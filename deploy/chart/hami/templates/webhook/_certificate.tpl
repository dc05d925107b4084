{{/*
The webhook's certificate. One rule: what stands in the Secret is kept, over upgrades and rollbacks, as long as it names
the right hosts and lives for another 90 days; the configuration's caBundle and the Secret come out of one rendering. A
changed Secret reaches the pods a minute later, so the authority before is believed too until the next upgrade.
*/}}

{{- define "hami.webhook.secret" -}}
{{ include "hami.fullname" . }}-webhook-tls
{{- end -}}

{{- define "hami.webhook.makesCertificate" -}}
{{- if and .Values.scheduler.patch.enabled (not .Values.scheduler.certManager.enabled) }}true{{ end -}}
{{- end -}}

{{/* Every name that the API server may call the webhook by. */}}
{{- define "hami.webhook.hosts" -}}
{{- $service := printf "%s-webhook.%s.svc" (include "hami.fullname" .) (include "hami.namespace" .) -}}
{{- $hosts := list $service (printf "%s.cluster.local" $service) -}}
{{- with .Values.scheduler.admissionWebhook.customURL -}}
{{- if and .enabled (not (regexMatch "^[0-9.]+$|:" .host)) }}{{ $hosts = append $hosts .host }}{{ end -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- define "hami.webhook.addresses" -}}
{{- with .Values.scheduler.admissionWebhook.customURL -}}
{{- if and .enabled (regexMatch "^[0-9.]+$|:" .host) }}{{ .host }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* ca, crt, key, believed (base64) and ends (unix seconds), as JSON. */}}
{{- define "hami.webhook.certificate" -}}
{{- $hosts := include "hami.webhook.hosts" . -}}
{{- $address := include "hami.webhook.addresses" . -}}
{{- $now := now | unixEpoch | int64 -}}
{{- $kept := lookup "v1" "Secret" (include "hami.namespace" .) (include "hami.webhook.secret" .) -}}
{{- $said := dig "metadata" "annotations" (dict) $kept -}}
{{- $fits := eq (get $said "hami.io/hosts") (printf "%s,%s" $hosts $address) -}}
{{- if and $fits (gt (get $said "hami.io/ends" | int64) (add $now 7776000)) -}}
{{- dict "ca" (index $kept.data "ca.crt") "crt" (index $kept.data "tls.crt") "key" (index $kept.data "tls.key") "believed" (index $kept.data "ca.crt") "ends" (get $said "hami.io/ends") | toJson -}}
{{- else -}}
{{- $days := 3650 -}}
{{- $ca := genCA (printf "%s-webhook-ca" (include "hami.fullname" .)) $days -}}
{{- $before := dig "data" "ca.crt" "" $kept | b64dec -}}
{{- $names := concat list (splitList "," $hosts) -}}
{{- $made := genSignedCert (first $names) (empty $address | ternary list (list $address)) $names $days $ca -}}
{{- dict "ca" ($ca.Cert | b64enc) "crt" ($made.Cert | b64enc) "key" ($made.Key | b64enc) "believed" (print $ca.Cert $before | b64enc) "ends" (add $now (mul $days 86400) | toString) | toJson -}}
{{- end -}}
{{- end -}}
