//go:build tools

// Package helm pins the version of helm that the pages' commands are run with.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
