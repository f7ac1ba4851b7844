// Pins the projects whose custom resource definitions the tests install. No code of them is built.
module sse-gateway/tests/kubernetes/crds

go 1.26.0

require (
	github.com/cilium/cilium v1.20.2
	github.com/kedacore/keda/v2 v2.20.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
