{{/*
The bundled NATS: one user a service, each with the subjects of docs/reference/bus.md and no other. Answers go to
inboxes, which only who was asked may write to (allow_responses).
*/}}

{{- define "hami.nats.rights" -}}
webhook:
  publish: [hami.v1.allocator.quota]
  subscribe: []
extender:
  publish: [hami.v1.allocator.filter, hami.v1.allocator.bind, hami.v1.allocator.simulate]
  subscribe: []
allocator:
  publish:
    - hami.v1.allocator.leader
    - hami.v1.allocator.follower
    - hami.v1.node.*.allocation
    - hami.v1.node.*.withdraw
    - hami.v1.node.*.report
    - hami.v1.event.>
    - $JS.API.STREAM.INFO.HAMI_EVENTS
    - $JS.API.STREAM.CREATE.HAMI_EVENTS
  subscribe:
    - hami.v1.allocator.>
    - hami.v1.node.*.inventory
    - hami.v1.node.*.heartbeat
    - hami.v1.node.*.confirm
    - hami.v1.node.*.refuse
node-agent:
  publish:
    - hami.v1.node.*.inventory
    - hami.v1.node.*.heartbeat
    - hami.v1.node.*.confirm
    - hami.v1.node.*.refuse
    # what disagrees on its own node
    - hami.v1.event.drift
    - hami.v1.event.drift.cleared
    - hami.v1.event.gap
    - $JS.API.STREAM.INFO.HAMI_EVENTS
    - $JS.API.STREAM.CREATE.HAMI_EVENTS
  subscribe:
    - hami.v1.allocator.leader
    - hami.v1.node.*.allocation
    - hami.v1.node.*.withdraw
    - hami.v1.node.*.report
# people, with hamictl and the nats command line: they read
reader:
  publish:
    - hami.v1.allocator.explain
    - hami.v1.allocator.snapshot
    - hami.v1.allocator.simulate
    - $SRV.>
    - $JS.API.INFO
    - $JS.API.STREAM.NAMES
    - $JS.API.STREAM.INFO.HAMI_EVENTS
    - $JS.API.STREAM.MSG.GET.HAMI_EVENTS
  subscribe: [hami.v1.event.>, hami.v1.allocator.follower]
{{- end -}}

{{/* user -> password, as JSON: what the Secret has already, or follows from the seed, or is drawn. */}}
{{- define "hami.nats.passwords" -}}
{{- $kept := default dict (lookup "v1" "Secret" (include "hami.namespace" .) (printf "%s-nats" (include "hami.fullname" .))).data -}}
{{- $seed := .Values.nats.seed -}}
{{- $passwords := dict -}}
{{- range $user := append (include "hami.nats.rights" . | fromYaml | keys | sortAlpha) "route" -}}
{{- $password := get $kept $user | b64dec -}}
{{- if $seed }}{{ $password = printf "%s/%s" $seed $user | sha256sum }}{{ else if not $password }}{{ $password = randAlphaNum 40 }}{{ end -}}
{{- $_ := set $passwords $user $password -}}
{{- end -}}
{{- toJson $passwords -}}
{{- end -}}

{{/* nats.conf; called with (list $ passwords). */}}
{{- define "hami.nats.config" -}}
{{- $root := index . 0 -}}
{{- $passwords := index . 1 -}}
{{- $name := printf "%s-nats" (include "hami.fullname" $root) -}}
{{- $replicas := $root.Values.nats.replicas | int -}}
port: 4222
http_port: 8222
server_name: $POD_NAME
# one filter call carries the names of all nodes
max_payload: 8388608
jetstream { store_dir: "/data/jetstream", max_file_store: {{ $root.Values.nats.jetstream.maxSize }} }
authorization {
  users: [
    {{- range $user, $may := include "hami.nats.rights" $root | fromYaml }}
    {
      user: {{ $user }}, password: {{ get $passwords $user | quote }}
      permissions {
        publish: {{ $may.publish | toRawJson }}
        subscribe: {{ concat $may.subscribe (list "_INBOX.>" "$SRV.>") | toRawJson }}
        # an allocator answers a roll call once for each service that it runs
        allow_responses: { max: 16, expires: "2m" }
      }
    }
    {{- end }}
  ]
}
{{- if gt $replicas 1 }}
cluster {
  name: {{ $name }}
  port: 6222
  authorization { user: route, password: {{ $passwords.route | quote }} }
  routes: [
    {{- range $i := until $replicas }}
    {{ printf "nats://route:%s@%s-%d.%s-headless.%s.svc:6222" $passwords.route $name $i $name (include "hami.namespace" $root) | quote }}
    {{- end }}
  ]
}
{{- end }}
{{- end -}}
