// Wardle is an API server of a group of its own, made of upstream's generic API server as its sample-apiserver is: it
// authenticates by request header and asks the cluster's API server what users may do, for whose namespaces its
// admission plugins look there, too.
//
// `cargo xtask clients` builds it from Debian's packages. Its flags are upstream's (--etcd-servers, --kubeconfig,
// --authentication-kubeconfig, --authorization-kubeconfig, --secure-port, --tls-cert-file ...).
package main

import (
	"os"

	"github.com/spf13/pflag"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/klog/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func check(err error) {
	if err != nil {
		klog.Fatal(err)
	}
}

func main() {
	recommended := options.NewRecommendedOptions("/registry/"+group.Group, codecs.LegacyCodec(group))
	flags := pflag.NewFlagSet(os.Args[0], pflag.ExitOnError)
	recommended.AddFlags(flags)
	check(flags.Parse(os.Args[1:]))
	check(utilerrors.NewAggregate(recommended.Validate()))

	config := server.NewRecommendedConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	namer := openapi.NewDefinitionNamer(scheme)
	config.OpenAPIConfig = server.DefaultOpenAPIConfig(definitions, namer)
	config.OpenAPIConfig.Info.Title = "Wardle"
	config.OpenAPIV3Config = server.DefaultOpenAPIV3Config(definitions, namer)
	config.OpenAPIV3Config.Info.Title = "Wardle"
	check(recommended.ApplyTo(config))
	generic, err := config.Complete().New("wardle", server.NewEmptyDelegate())
	check(err)

	info := server.NewDefaultAPIGroupInfo(group.Group, scheme, metav1.ParameterCodec, codecs)
	stores, err := stores(config.RESTOptionsGetter)
	check(err)
	info.VersionedResourcesStorageMap[group.Version] = map[string]rest.Storage(stores)
	check(generic.InstallAPIGroup(&info))
	check(generic.PrepareRun().RunWithContext(server.SetupSignalContext()))
}
