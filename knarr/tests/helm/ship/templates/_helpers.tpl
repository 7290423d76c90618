{{- define "ship.fullname" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "ship.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ship.page" -}}
{{ include "ship.selector" . }}
app.kubernetes.io/component: page
{{- end }}

{{- define "ship.store" -}}
{{ include "ship.selector" . }}
app.kubernetes.io/component: store
{{- end }}

{{- define "ship.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "ship.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The key is made once: an upgrade finds the one that is there. */}}
{{- define "ship.key" -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "ship.fullname" .) -}}
{{- if $there }}{{ index $there.data "key" }}{{ else }}{{ randAlphaNum 24 | b64enc }}{{ end -}}
{{- end }}

{{/* A hook that runs a line of shell: a Job, or a Pod where Helm reads its log. */}}
{{- define "ship.hook" -}}
{{- $top := index . 0 -}}
metadata:
  name: {{ include "ship.fullname" $top }}-{{ index . 1 }}
  labels: {hook: {{ index . 1 }}}
  annotations:
    helm.sh/hook: {{ index . 2 }}
    helm.sh/hook-weight: "5"
    helm.sh/hook-delete-policy: {{ index . 3 }}
{{- end }}

{{- define "ship.shell" -}}
restartPolicy: Never
terminationGracePeriodSeconds: 0
containers:
  - name: main
    image: {{ (index . 0).Values.tools }}
    command: [sh, -c]
    args: [{{ index . 1 | quote }}]
{{- end }}

{{- define "ship.job" -}}
apiVersion: batch/v1
kind: Job
{{ include "ship.hook" . }}
spec:
  backoffLimit: 0
  template:
    spec:
      {{- include "ship.shell" (list (index . 0) (index . 4)) | nindent 6 }}
{{- end }}
