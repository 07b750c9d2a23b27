{{- define "modelarts-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Shorter than 63, because the names of pods and ConfigMaps are derived from it. */}}
{{- define "modelarts-exporter.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "modelarts-exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "modelarts-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "modelarts-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelarts-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/component: metrics
app.kubernetes.io/part-of: {{ include "modelarts-exporter.name" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "modelarts-exporter.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "modelarts-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "modelarts-exporter.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "modelarts-exporter.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .Values.image.repository -}}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end -}}
{{- end -}}

{{/* Non-empty if there is a volume for the state file. */}}
{{- define "modelarts-exporter.stateful" -}}
{{- if and .Values.persistence.enabled (not .Values.demo.enabled) }}yes{{ end -}}
{{- end -}}

{{/* Non-empty if the chart creates the configuration file. */}}
{{- define "modelarts-exporter.ownConfig" -}}
{{- if and .Values.config (not .Values.demo.enabled) (not .Values.existingConfigSecret.name) }}yes{{ end -}}
{{- end -}}

{{- define "modelarts-exporter.telemetryPath" -}}
{{- dig "web" "telemetry_path" "/metrics" .Values.config -}}
{{- end -}}

{{/* Checks that the schema cannot express, or not with a clear message. */}}
{{- define "modelarts-exporter.validate" -}}
{{- $config := .Values.config -}}
{{- if not .Values.demo.enabled -}}
  {{- if and $config .Values.existingConfigSecret.name -}}
    {{- fail "config and existingConfigSecret.name are both set; set only one of them" -}}
  {{- end -}}
  {{- if not (or $config.target $config.targets $config.targets_files .Values.existingConfigSecret.name .Values.env .Values.envFrom .Values.extraArgs) -}}
    {{- fail "no target: set at least config.target.region and credentials.existingSecret, or try --set demo.enabled=true; see the chart's README.md" -}}
  {{- end -}}
{{- end -}}
{{- $targets := concat (list (default dict $config.target)) (default list $config.targets) -}}
{{- range $target := $targets -}}
  {{- range $key := list "secret_key" "security_token" "password" "token" -}}
    {{- if hasKey (default dict $target.auth) $key -}}
      {{- fail (printf "config contains the secret auth.%s, but is stored in a ConfigMap; use auth.%s_file with a file from credentials.existingSecret, or put the whole file in existingConfigSecret" $key $key) -}}
    {{- end -}}
  {{- end -}}
  {{- if regexMatch "^[^/]*//[^/]*@" (default "" $target.proxy) -}}
    {{- fail "config contains a proxy with a password, but is stored in a ConfigMap; set MODELARTS_EXPORTER_TARGET__PROXY from a Secret in env, or put the whole file in existingConfigSecret" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
  {{- fail "ingress needs at least one host name in ingress.hosts" -}}
{{- end -}}
{{- if and .Values.workloadIdentity.enabled (not (and .Values.workloadIdentity.idpId .Values.workloadIdentity.audience)) -}}
  {{- fail "workloadIdentity needs idpId and audience" -}}
{{- end -}}
{{- end -}}

{{/* Takes a list: the root context, and the path to probe. */}}
{{- define "modelarts-exporter.probe" -}}
{{- $root := index . 0 -}}
{{- $scheme := default (ternary "tcp" "http" (ne $root.Values.webConfig.existingSecret "")) $root.Values.probeScheme -}}
{{- if eq $scheme "tcp" -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
  scheme: {{ upper $scheme }}
  {{- with $root.Values.probeHeaders }}
  httpHeaders:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "modelarts-exporter.args" -}}
{{- if .Values.demo.enabled -}}
- demo
{{- range .Values.demo.args }}
- {{ . | quote }}
{{- end }}
{{- else -}}
- serve
{{- if or .Values.existingConfigSecret.name (include "modelarts-exporter.ownConfig" .) }}
- --config.file=/etc/modelarts-exporter/config/config.yaml
{{- end }}
{{- end }}
- {{ printf "--web.listen-address=%s:%v" .Values.listenHost .Values.containerPort | quote }}
{{- if .Values.webConfig.existingSecret }}
- {{ printf "--web.config.file=/etc/modelarts-exporter/web/%s" .Values.webConfig.key | quote }}
{{- end }}
{{- if include "modelarts-exporter.stateful" . }}
- --state.file=/var/lib/modelarts-exporter/state.db
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The arguments that check what the container runs; without its port and state file, which are in use. */}}
{{- define "modelarts-exporter.checkArgs" -}}
- check
{{- range rest (fromYamlArray (include "modelarts-exporter.args" .)) }}
{{- if not (regexMatch "^--(web.listen-address|state.file)=" .) }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The same for a shell. */}}
{{- define "modelarts-exporter.check" -}}
modelarts-exporter
{{- range fromYamlArray (include "modelarts-exporter.checkArgs" .) }} {{ if regexMatch "^[-+./:=@_A-Za-z0-9]+$" . }}{{ . }}{{ else }}'{{ replace "'" "'\\''" . }}'{{ end }}
{{- end }}
{{- end -}}

{{- define "modelarts-exporter.env" -}}
{{- if and .Values.credentials.existingSecret (not .Values.demo.enabled) }}
- name: HUAWEICLOUD_SDK_CREDENTIALS_FILE
  value: /etc/modelarts-exporter/credentials/profile
{{- end }}
{{- if and .Values.workloadIdentity.enabled (not .Values.demo.enabled) }}
- name: HUAWEICLOUD_SDK_IDP_ID
  value: {{ .Values.workloadIdentity.idpId | quote }}
- name: HUAWEICLOUD_SDK_ID_TOKEN_FILE
  value: /var/run/secrets/modelarts-exporter/token
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "modelarts-exporter.volumeMounts" -}}
{{- if not .Values.demo.enabled }}
{{- if or .Values.existingConfigSecret.name (include "modelarts-exporter.ownConfig" .) }}
- name: config
  mountPath: /etc/modelarts-exporter/config
  readOnly: true
{{- end }}
{{- if .Values.credentials.existingSecret }}
- name: credentials
  mountPath: /etc/modelarts-exporter/credentials
  readOnly: true
{{- end }}
{{- if .Values.workloadIdentity.enabled }}
- name: identity
  mountPath: /var/run/secrets/modelarts-exporter
  readOnly: true
{{- end }}
{{- end }}
{{- if .Values.webConfig.existingSecret }}
- name: web
  mountPath: /etc/modelarts-exporter/web
  readOnly: true
{{- end }}
{{- if include "modelarts-exporter.stateful" . }}
- name: state
  mountPath: /var/lib/modelarts-exporter
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "modelarts-exporter.volumes" -}}
# Without a state file, most of a long job history is kept here instead of in memory.
- name: tmp
  emptyDir: {}
{{- if not .Values.demo.enabled }}
{{- if .Values.existingConfigSecret.name }}
- name: config
  secret:
    secretName: {{ .Values.existingConfigSecret.name }}
    defaultMode: 0440
    items:
      - key: {{ .Values.existingConfigSecret.key | quote }}
        path: config.yaml
{{- else if include "modelarts-exporter.ownConfig" . }}
- name: config
  configMap:
    name: {{ include "modelarts-exporter.fullname" . }}
{{- end }}
{{- if .Values.credentials.existingSecret }}
- name: credentials
  secret:
    secretName: {{ .Values.credentials.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- if .Values.workloadIdentity.enabled }}
- name: identity
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.workloadIdentity.audience | quote }}
          expirationSeconds: {{ .Values.workloadIdentity.expirationSeconds }}
{{- end }}
{{- end }}
{{- if .Values.webConfig.existingSecret }}
- name: web
  secret:
    secretName: {{ .Values.webConfig.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- if and (include "modelarts-exporter.stateful" .) .Values.persistence.existingClaim }}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a container needs to run the exporter or its check. */}}
{{- define "modelarts-exporter.containerSettings" -}}
image: {{ include "modelarts-exporter.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with include "modelarts-exporter.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "modelarts-exporter.volumeMounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What a pod with such a container needs. */}}
{{- define "modelarts-exporter.podSettings" -}}
serviceAccountName: {{ include "modelarts-exporter.serviceAccountName" . }}
automountServiceAccountToken: false
# The variables of other services would be mistaken for options.
enableServiceLinks: false
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "modelarts-exporter.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The pod template of the Deployment or StatefulSet. */}}
{{- define "modelarts-exporter.pod" -}}
metadata:
  annotations:
    kubectl.kubernetes.io/default-container: exporter
    {{- if include "modelarts-exporter.ownConfig" . }}
    checksum/config: {{ toYaml .Values.config | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # Without the chart's version, so that a chart upgrade does not restart an unchanged pod.
  labels:
    {{- include "modelarts-exporter.selectorLabels" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "modelarts-exporter.podSettings" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "modelarts-exporter.selectorLabels" $ | nindent 10 }}
      {{- end }}
    {{- end }}
  {{- end }}
  containers:
    - name: exporter
      {{- include "modelarts-exporter.containerSettings" . | nindent 6 }}
      args:
        {{- include "modelarts-exporter.args" . | nindent 8 }}
      ports:
        - name: metrics
          containerPort: {{ .Values.containerPort }}
          protocol: TCP
      startupProbe:
        {{- include "modelarts-exporter.probe" (list . "/-/healthy") | nindent 8 }}
        {{- toYaml .Values.startupProbe | nindent 8 }}
      livenessProbe:
        {{- include "modelarts-exporter.probe" (list . "/-/healthy") | nindent 8 }}
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      readinessProbe:
        {{- include "modelarts-exporter.probe" (list . "/-/ready") | nindent 8 }}
        {{- toYaml .Values.readinessProbe | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Metadata of the Deployment or StatefulSet. */}}
{{- define "modelarts-exporter.workloadMetadata" -}}
name: {{ include "modelarts-exporter.fullname" . }}
namespace: {{ include "modelarts-exporter.namespace" . }}
labels:
  {{- include "modelarts-exporter.labels" . | nindent 2 }}
  {{- with .Values.workloadLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.workloadAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
