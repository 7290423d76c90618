package main

import (
	extensions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var (
	group  = schema.GroupVersion{Group: "wardle.example.com", Version: "v1alpha1"}
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

// FlunderSpec is what a Flunder is to be.
type FlunderSpec struct {
	Reference string `json:"reference,omitempty"`
}

// FlunderStatus is what has become of it.
type FlunderStatus struct {
	Seen string `json:"seen,omitempty"`
}

// Flunder is the one kind.
type Flunder struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FlunderSpec   `json:"spec,omitempty"`
	Status            FlunderStatus `json:"status,omitempty"`
}

// FlunderList is a list of them.
type FlunderList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Flunder `json:"items"`
}

func (in *Flunder) DeepCopyObject() runtime.Object {
	out := *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

func (in *FlunderList) DeepCopyObject() runtime.Object {
	out := *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Flunder, 0, len(in.Items))
	for _, item := range in.Items {
		out.Items = append(out.Items, *item.DeepCopyObject().(*Flunder))
	}
	return &out
}

func (Flunder) OpenAPIModelName() string     { return "com.example.wardle.v1alpha1.Flunder" }
func (FlunderList) OpenAPIModelName() string { return "com.example.wardle.v1alpha1.FlunderList" }

func init() {
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{},
		&metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	metav1.AddToGroupVersion(scheme, group)
	// Stored and served are the same type, so that nothing is to be converted.
	internal := schema.GroupVersion{Group: group.Group, Version: runtime.APIVersionInternal}
	for _, version := range []schema.GroupVersion{group, internal} {
		scheme.AddKnownTypes(version, &Flunder{}, &FlunderList{})
	}
	check(scheme.SetVersionPriority(group))
}

func object(description string, properties map[string]spec.Schema) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{
		Description: description, Type: []string{"object"}, Properties: properties, Default: map[string]any{},
	}}
}

func text(description string) spec.Schema {
	return spec.Schema{SchemaProps: spec.SchemaProps{Description: description, Type: []string{"string"}}}
}

// Definitions tells of the types, and of upstream's that they are made of.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := extensions.GetOpenAPIDefinitions(ref)
	to := func(name string) spec.Schema {
		return spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref(name), Default: map[string]any{}}}
	}
	flunder := object("Flunder is the one kind of the group.", map[string]spec.Schema{
		"apiVersion": text("The version of the group."), "kind": text("The kind."),
		"metadata": to(metav1.ObjectMeta{}.OpenAPIModelName()),
		"spec": object("What it is to be.", map[string]spec.Schema{
			"reference": text("The name of another Flunder."),
		}),
		"status": object("What has become of it.", map[string]spec.Schema{"seen": text("Who has seen it.")}),
	})
	item := to(Flunder{}.OpenAPIModelName())
	items := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"array"}, Items: &spec.SchemaOrArray{Schema: &item}}}
	list := object("FlunderList is a list of them.", map[string]spec.Schema{
		"apiVersion": text("The version of the group."), "kind": text("The kind."),
		"metadata": to(metav1.ListMeta{}.OpenAPIModelName()), "items": items,
	})
	all[Flunder{}.OpenAPIModelName()] = common.OpenAPIDefinition{
		Schema: flunder, Dependencies: []string{metav1.ObjectMeta{}.OpenAPIModelName()},
	}
	all[FlunderList{}.OpenAPIModelName()] = common.OpenAPIDefinition{
		Schema: list, Dependencies: []string{metav1.ListMeta{}.OpenAPIModelName(), Flunder{}.OpenAPIModelName()},
	}
	return all
}
