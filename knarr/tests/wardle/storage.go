package main

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Strategy has the rules of Flunders: one whose reference is "nothing" is refused.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

func (strategy) NamespaceScoped() bool                                     { return true }
func (strategy) AllowCreateOnUpdate() bool                                 { return false }
func (strategy) AllowUnconditionalUpdate() bool                            { return true }
func (strategy) Canonicalize(runtime.Object)                               {}
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return []string{"flunders do not like to be changed"}
}

func (strategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	// Who asks, as the cluster's API server says.
	user, _ := request.UserFrom(ctx)
	obj.(*Flunder).Status = FlunderStatus{Seen: user.GetName()}
}

func (strategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	obj.(*Flunder).Status = old.(*Flunder).Status
}

func (strategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	if flunder := obj.(*Flunder); flunder.Spec.Reference == "nothing" {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "reference"), "nothing", "must be something")}
	}
	return nil
}

func (s strategy) ValidateUpdate(ctx context.Context, obj, _ runtime.Object) field.ErrorList {
	return s.Validate(ctx, obj)
}

// StatusStrategy has those of the status.
type statusStrategy struct{ strategy }

func (statusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	spec := fieldpath.NewSet(fieldpath.MakePathOrDie("spec"))
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(group.String()): spec}
}

func (statusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	obj.(*Flunder).Spec = old.(*Flunder).Spec
}

// Status is the sub-resource.
type status struct{ store *registry.Store }

func (s status) New() runtime.Object { return s.store.New() }
func (s status) Destroy()            {}

func (s status) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

func (s status) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, info, create, update, false, options)
}

// Stores keeps Flunders in etcd.
func stores(getter generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	rules := strategy{scheme, names.SimpleNameGenerator}
	resource := group.WithResource("flunders").GroupResource()
	store := &registry.Store{
		NewFunc:                   func() runtime.Object { return &Flunder{} },
		NewListFunc:               func() runtime.Object { return &FlunderList{} },
		DefaultQualifiedResource:  resource,
		SingularQualifiedResource: group.WithResource("flunder").GroupResource(),
		CreateStrategy:            rules,
		UpdateStrategy:            rules,
		DeleteStrategy:            rules,
		TableConvertor:            rest.NewDefaultTableConvertor(resource),
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter}); err != nil {
		return nil, err
	}
	statuses := *store
	statuses.UpdateStrategy = statusStrategy{rules}
	statuses.ResetFieldsStrategy = statusStrategy{rules}
	return map[string]rest.Storage{"flunders": store, "flunders/status": status{&statuses}}, nil
}
