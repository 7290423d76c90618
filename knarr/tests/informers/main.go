// Informers keeps caches with client-go's shared informers while the server dies, and says whether they are what a list is.
//
// `cargo xtask clients` builds it from Debian's packages. A line on standard input ends the writes; then every cache is
// compared with a list. It prints "synced" first, then what goes wrong, then "done".
package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	protobuf = "application/vnd.kubernetes.protobuf"
	patience = 50 * time.Second
)

// What is watched. Not Leases and Events, which change all the time.
var resources = []schema.GroupVersionResource{
	{Version: "v1", Resource: "configmaps"},
	{Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "services"},
	{Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "namespaces"},
	{Version: "v1", Resource: "serviceaccounts"},
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
}

// Fails the run: what is printed here fails the test.
func complain(format string, arguments ...any) {
	fmt.Printf("WRONG "+format+"\n", arguments...)
}

func check(err error) {
	if err != nil {
		complain("%v", err)
		os.Exit(1)
	}
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err)
	config.QPS, config.Burst = 1000, 1000
	seen := &requests{}
	config.Wrap(seen.wrap)
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = protobuf, protobuf
	typed := kubernetes.NewForConfigOrDie(binary)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	caches := follow(ctx, binary, config, typed)
	seen.report(len(caches))
	elections := elect(ctx, typed)
	fmt.Println("synced")

	stop := make(chan struct{})
	stopped := write(ctx, typed, stop)
	bufio.NewReader(os.Stdin).ReadString('\n')
	close(stop)
	fmt.Printf("%d writes\n", <-stopped)
	check(elections.hand(ctx))
	plain := dynamic.NewForConfigOrDie(config)
	for _, one := range caches {
		one.compare(ctx, plain)
	}
	fmt.Println("done")
}

// A cache, and what its events make of it.
type watched struct {
	name     string
	resource schema.GroupVersionResource
	informer cache.SharedIndexInformer
	events   *replay
}

// Starts an informer of each of the three kinds for each resource and waits until all have their caches.
func follow(ctx context.Context, binary, config *rest.Config, typed kubernetes.Interface) []watched {
	factory := informers.NewSharedInformerFactory(typed, 0)
	metas := metadatainformer.NewSharedInformerFactory(metadata.NewForConfigOrDie(binary), 0)
	dynamics := dynamicinformer.NewDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(config), 0)
	var caches []watched
	for _, resource := range resources {
		one, err := factory.ForResource(resource)
		check(err)
		caches = append(caches,
			watched{"typed " + resource.Resource, resource, one.Informer(), newReplay()},
			watched{"metadata " + resource.Resource, resource, metas.ForResource(resource).Informer(), newReplay()},
			watched{"dynamic " + resource.Resource, resource, dynamics.ForResource(resource).Informer(), newReplay()})
	}
	for _, one := range caches {
		_, err := one.informer.AddEventHandler(one.events.handler(one.name))
		check(err)
	}
	factory.Start(ctx.Done())
	metas.Start(ctx.Done())
	dynamics.Start(ctx.Done())
	for _, one := range caches {
		if !cache.WaitForCacheSync(ctx.Done(), one.informer.HasSynced) {
			complain("%s never synced", one.name)
		}
	}
	return caches
}

// The resource versions of a cache's objects.
func (one *watched) versions() map[string]string {
	versions := map[string]string{}
	for _, object := range one.informer.GetStore().List() {
		key, version := identity(object)
		versions[key] = version
	}
	return versions
}

// Compares the cache and its events with a list, until they are equal or patience ends.
func (one *watched) compare(ctx context.Context, client dynamic.Interface) {
	var differences string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		list, err := client.Resource(one.resource).List(ctx, metav1.ListOptions{})
		check(err)
		listed := map[string]string{}
		for _, object := range list.Items {
			listed[object.GetNamespace()+"/"+object.GetName()] = object.GetResourceVersion()
		}
		differences = difference("cache", one.versions(), listed) + difference("events", one.events.versions(), listed)
		if differences == "" {
			fmt.Printf("%s: %d objects\n", one.name, len(listed))
			return
		}
	}
	complain("%s: %s", one.name, differences)
}

func difference(name string, has, listed map[string]string) string {
	text := ""
	keys := slices.Sorted(maps.Keys(listed))
	for key := range has {
		if _, there := listed[key]; !there {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if has[key] != listed[key] {
			text += fmt.Sprintf("%s has %s at %q and the list at %q; ", name, key, has[key], listed[key])
		}
	}
	return text
}
