{{/*
What the schema cannot say, or says in no words that help: texts of a form, values that contradict each other, and names
that guides write and HAMi never read. Each is one sentence with the way out. Included once, by checks.yaml.
*/}}

{{/* value, its form (a regular expression) and how to write it, by the value's name. */}}
{{- define "hami.forms" -}}
{{- $resource := list "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$" "write domain/name, such as nvidia.com/gpu" -}}
{{- $path := list "^/." "write a path from the root, such as /usr/local" -}}
{{- $whole := list "^[0-9]+$" "write a whole number" -}}
{{- $factor := list "^[0-9]*\\.?[0-9]+$" "write a factor, such as 1.5" -}}
{{- $v := .Values -}}
{{- $forms := dict
  "schedulerName" (list $v.schedulerName "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" "write a name of lower-case letters, digits, - and ., such as hami-scheduler")
  "scheduler.nodeLockExpire" (list $v.scheduler.nodeLockExpire "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$" "write a duration, such as 5m or 1m30s")
  "scheduler.metricsBindAddress" (list $v.scheduler.metricsBindAddress ":[0-9]+$" "write host:port or :port, such as :9395")
  "scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy" (list $v.scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy "^(binpack|spread|numa|mutex|topology-aware)( *, *(binpack|spread|numa|mutex|topology-aware))*$" "write binpack, spread, numa, mutex or topology-aware, or several, comma-separated")
  "devicePlugin.deviceListStrategy" (list $v.devicePlugin.deviceListStrategy "^(envvar|volume-mounts|cdi-annotations|cdi-cri)(,(envvar|volume-mounts|cdi-annotations|cdi-cri))*$" "write envvar, volume-mounts, cdi-annotations or cdi-cri, or several, comma-separated")
  "nats.external.url" (list $v.nats.external.url "^$|^(nats|tls|ws|wss)://[^,]+(,(nats|tls|ws|wss)://[^,]+)*$" "write nats://host:4222, or several, comma-separated")
  "nats.jetstream.maxSize" (list $v.nats.jetstream.maxSize "^[0-9]+(Mi|Gi|Ti|M|G|T)$" "write a size, such as 1Gi")
  "global.gpuHookPath" (prepend $path $v.global.gpuHookPath)
  "scheduler.admissionWebhook.customURL.path" (prepend $path $v.scheduler.admissionWebhook.customURL.path)
  "devicePlugin.deviceSplitCount" (prepend $whole $v.devicePlugin.deviceSplitCount)
  "devicePlugin.preConfiguredDeviceMemory" (prepend $whole $v.devicePlugin.preConfiguredDeviceMemory)
  "devicePlugin.deviceMemoryScaling" (prepend $factor $v.devicePlugin.deviceMemoryScaling)
  "devicePlugin.deviceCoreScaling" (prepend $factor $v.devicePlugin.deviceCoreScaling) -}}
{{- range $name := list "resourceName" "resourceMem" "resourceMemPercentage" "resourceCores" "resourcePriority" "mluResourceName" "mluResourceMem" "mluResourceCores" "dcuResourceName" "dcuResourceMem" "dcuResourceCores" "metaxResourceName" "metaxResourceCore" "metaxResourceMem" "enflameResourceNameDRSGCU" "enflameResourceNameGCUMemory" "enflameResourceNameGCUCore" "kunlunResourceName" "kunlunResourceVCountName" "kunlunResourceVMemoryName" "vastaiResourceName" "birenResourceName" -}}
{{- $_ := set $forms $name (prepend $resource (get $v $name)) -}}
{{- end -}}
{{- range $name, $form := $forms -}}
{{- if not (regexMatch (index $form 1) (toString (index $form 0))) -}}
{{- fail (printf "%s is %q: %s" $name (toString (index $form 0)) (index $form 2)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names that stand in guides and are no values. */}}
{{- define "hami.strangers" -}}
{{- if hasKey .Values "device" -}}
{{- fail "device is no value: write devices, such as devices.mthreads.enabled" -}}
{{- end -}}
{{- if hasKey .Values.devicePlugin.service "schedulerPort" -}}
{{- fail "devicePlugin.service.schedulerPort is no value: write scheduler.service.schedulerPort" -}}
{{- end -}}
{{- if hasKey .Values.scheduler.kubeScheduler "imageTag" -}}
{{- fail "scheduler.kubeScheduler.imageTag is no value: write scheduler.kubeScheduler.image.tag, or leave it out for the cluster's version" -}}
{{- end -}}
{{- end -}}

{{- define "hami.checks" -}}
{{- include "hami.strangers" . -}}
{{- include "hami.forms" . -}}
{{- $v := .Values -}}
{{- $home := printf "%s/vgpu" $v.global.gpuHookPath -}}
{{- if ne $v.devicePlugin.libPath $home -}}
{{- fail (printf "devicePlugin.libPath is %s and global.gpuHookPath %s: the library stands in %s on the node and in containers, so change both together" $v.devicePlugin.libPath $v.global.gpuHookPath $home) -}}
{{- end -}}
{{- if ne $v.devicePlugin.monitor.ctrPath (printf "%s/containers" $home) -}}
{{- fail (printf "devicePlugin.monitor.ctrPath is %s: containers' folders stand in %s/containers, so write that, or change global.gpuHookPath too" $v.devicePlugin.monitor.ctrPath $home) -}}
{{- end -}}
{{- if ne (base $v.devicePlugin.pluginPath) "device-plugins" -}}
{{- fail (printf "devicePlugin.pluginPath is %s: name the folder device-plugins of the kubelet, such as /var/lib/kubelet/device-plugins" $v.devicePlugin.pluginPath) -}}
{{- end -}}
{{- if and (not $v.nats.enabled) (not $v.nats.external.url) -}}
{{- fail "nats.enabled is false and nats.external.url is empty: name your NATS, such as nats://nats.messaging:4222" -}}
{{- end -}}
{{- if and $v.nats.enabled (or $v.nats.external.url $v.nats.external.credsSecret $v.nats.external.caSecret) -}}
{{- fail "nats.external is set and nats.enabled is true: write nats.enabled=false to use your own NATS" -}}
{{- end -}}
{{- if and $v.scheduler.admissionWebhook.enabled (not $v.scheduler.patch.enabled) (not $v.scheduler.certManager.enabled) (not $v.webhook.caBundle) -}}
{{- fail (printf "scheduler.patch.enabled and scheduler.certManager.enabled are false, so the certificate is yours: put it into Secret %s, and its CA, in base64, into webhook.caBundle" (include "hami.webhook.secret" .)) -}}
{{- end -}}
{{- if $v.mockDevicePlugin.enabled -}}
{{- fail "mockDevicePlugin.enabled is true: there is no mock device plugin here, so leave it out" -}}
{{- end -}}
{{- if ne (toString $v.scheduler.service.monitorTargetPort) (include "hami.allocator.port" .) -}}
{{- fail (printf "scheduler.service.monitorTargetPort is %v and scheduler.metricsBindAddress %s: name the same port" $v.scheduler.service.monitorTargetPort $v.scheduler.metricsBindAddress) -}}
{{- end -}}
{{- end -}}
