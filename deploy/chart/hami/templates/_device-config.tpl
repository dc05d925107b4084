{{/*
The device config, and what follows from it: the resource names that kube-scheduler leaves to us, and the beginnings of
names by which the API server knows a device pod. One rule: names stand in the device config alone; everything else is
read out of it, so that a resource that is renamed is renamed everywhere.
*/}}

{{- define "hami.deviceConfig" -}}
{{- with index .Values "device-config" "content" -}}
{{- . -}}
{{- else -}}
{{- $v := .Values -}}
{{- $config := .Files.Get "files/device-config.yaml" | fromYaml -}}
{{- $nvidia := dict
  "resourceCountName" $v.resourceName
  "resourceMemoryName" $v.resourceMem
  "resourceMemoryPercentageName" $v.resourceMemPercentage
  "resourceCoreName" $v.resourceCores
  "resourcePriorityName" $v.resourcePriority
  "overwriteEnv" (eq (toString $v.scheduler.overwriteEnv) "true")
  "disableCoreLimit" (eq (toString $v.devicePlugin.disablecorelimit) "true")
  "preConfiguredDeviceMemory" ($v.devicePlugin.preConfiguredDeviceMemory | int64)
  "deviceSplitCount" ($v.devicePlugin.deviceSplitCount | int64)
  "deviceMemoryScaling" ($v.devicePlugin.deviceMemoryScaling | float64)
  "deviceCoreScaling" ($v.devicePlugin.deviceCoreScaling | float64)
  "enableNumaTopology" $v.devicePlugin.enableNumaTopology
  "gpuCorePolicy" $v.devices.nvidia.gpuCorePolicy
  "libCudaLogLevel" $v.devices.nvidia.libCudaLogLevel
  "runtimeClassName" $v.devicePlugin.runtimeClassName -}}
{{- $_ := set $config "nvidia" (mergeOverwrite $config.nvidia $nvidia) -}}
{{- $_ := set $config "cambricon" (dict "resourceCountName" $v.mluResourceName "resourceMemoryName" $v.mluResourceMem "resourceCoreName" $v.mluResourceCores) -}}
{{- $_ := set $config "hygon" (mergeOverwrite $config.hygon (dict "resourceCountName" $v.dcuResourceName "resourceMemoryName" $v.dcuResourceMem "resourceCoreName" $v.dcuResourceCores)) -}}
{{- $_ := set $config "metax" (mergeOverwrite $config.metax (dict "resourceVCountName" $v.metaxResourceName "resourceVMemoryName" $v.metaxResourceMem "resourceVCoreName" $v.metaxResourceCore "sgpuTopologyAware" (eq (toString $v.metaxsGPUTopologyAware) "true"))) -}}
{{- $_ := set $config "enflame" (mergeOverwrite $config.enflame (dict "resourceNameDRSGCU" $v.enflameResourceNameDRSGCU "resourceNameGCUMemory" $v.enflameResourceNameGCUMemory "resourceNameGCUCore" $v.enflameResourceNameGCUCore)) -}}
{{- $_ := set $config "kunlun" (dict "resourceCountName" $v.kunlunResourceName "resourceVCountName" $v.kunlunResourceVCountName "resourceVMemoryName" $v.kunlunResourceVMemoryName) -}}
{{- $_ := set $config "vastai" (dict "resourceCountName" $v.vastaiResourceName) -}}
{{- $_ := set $config "biren" (dict "resourceCountName" $v.birenResourceName) -}}
{{- $_ := set $config.vnpus "hamiVnpuCore" $v.devices.ascend.hamiVnpuCore -}}
{{- range $config.vnpus.configs }}{{ $_ := set . "runtimeClassName" $v.devices.ascend.runtimeClassName }}{{ end -}}
{{- range $vendor := list "kunlun" "enflame" "mthreads" "vastai" "biren" -}}
{{- if not (get $v.devices $vendor).enabled }}{{ $_ := unset $config $vendor }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
{{- end -}}

{{/* Every resource name of the vendors that take part, as a JSON list under "names". */}}
{{- define "hami.resourceNames" -}}
{{- $config := include "hami.deviceConfig" . | fromYaml -}}
{{- if $config.Error -}}
{{- fail (printf "device-config.content is no YAML: %s" $config.Error) -}}
{{- end -}}
{{- $parts := list -}}
{{- range $vendor := list "nvidia" "cambricon" "hygon" "metax" "enflame" "mthreads" "kunlun" "awsneuron" "amd" "vastai" "biren" -}}
{{- with get $config $vendor }}{{ $parts = append $parts . }}{{ end -}}
{{- end -}}
{{- if .Values.devices.ascend.enabled }}{{ with $config.vnpus }}{{ $parts = concat $parts (default list .configs) }}{{ end }}{{ end -}}
{{- if .Values.devices.iluvatar.enabled }}{{ $parts = concat $parts (default list $config.iluvatars) }}{{ end -}}
{{- $names := list -}}
{{- range $part := $parts -}}
{{- range $key := keys $part | sortAlpha -}}
{{- if and (hasPrefix "resource" $key) (contains "Name" $key) (get $part $key) }}{{ $names = append $names (get $part $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $vendor, $said := .Values.devices -}}
{{- if and (ne $vendor "nvidia") (or (not (hasKey $said "enabled")) $said.enabled) }}{{ $names = concat $names $said.customresources }}{{ end -}}
{{- end -}}
{{- dict "names" (uniq $names) | toJson -}}
{{- end -}}

{{/*
How names of devices begin, as a CEL list. The whole domain counts, so that our webhook also sees names that it warns
of; but AWS has more under its domain than devices.
*/}}
{{- define "hami.prefixes" -}}
{{- $prefixes := list -}}
{{- range $name := (include "hami.resourceNames" . | fromJson).names -}}
{{- $prefixes = append $prefixes (hasPrefix "aws.amazon.com/" $name | ternary $name (printf "%s/" (splitList "/" $name | first))) -}}
{{- end -}}
{{- $quoted := list -}}
{{- range uniq $prefixes }}{{ $quoted = append $quoted (. | squote) }}{{ end -}}
[{{ join ", " $quoted }}]
{{- end -}}

{{/* Whether the device config hides cards from containers that ask for none. */}}
{{- define "hami.hidesCards" -}}
{{- $config := include "hami.deviceConfig" . | fromYaml -}}
{{- $hides := dig "nvidia" "overwriteEnv" false $config -}}
{{- if .Values.devices.ascend.enabled }}{{ range dig "vnpus" "configs" (list) $config }}{{ if .overwriteEnv }}{{ $hides = true }}{{ end }}{{ end }}{{ end -}}
{{- if $hides }}true{{ end -}}
{{- end -}}
