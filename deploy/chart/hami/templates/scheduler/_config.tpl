{{/* The cluster's version as kube-scheduler's images are tagged: v1.31.1+k3s1 and v1.31.1-eks-1 are v1.31.1. */}}
{{- define "hami.kubeVersion" -}}
{{- regexFind "^v?[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version -}}
{{- end -}}

{{- define "hami.schedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: {{ .Values.scheduler.leaderElect }}
  resourceName: {{ .Values.schedulerName }}
  resourceNamespace: {{ include "hami.namespace" . }}
profiles:
  - schedulerName: {{ .Values.schedulerName }}
    percentageOfNodesToScore: 100
extenders:
  - urlPrefix: http://127.0.0.1:8080
    filterVerb: filter
    bindVerb: bind
    weight: 1
    httpTimeout: 30s
    nodeCacheCapable: true
    ignorable: false
    managedResources:
      {{- range (include "hami.resourceNames" . | fromJson).names }}
      - {name: {{ . }}, ignoredByScheduler: true}
      {{- end }}
{{- end -}}
