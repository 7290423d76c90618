package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

// Step is a write of one object: an apply, or an update by another verb.
type Step struct {
	Apply   bool            `json:"apply"`
	Force   bool            `json:"force"`
	Manager string          `json:"manager"`
	Object  json.RawMessage `json:"object"`
}

var converter = applyconfigurations.NewTypeConverter(scheme.Scheme)

// apply does one write after the other, and says after each what the object is or which fields conflict.
func apply(c *Case) (any, error) {
	kind := schema.FromAPIVersionAndKind(c.APIVersion, c.Kind)
	manager, err := managedfields.NewDefaultFieldManager(
		converter, scheme.Scheme, scheme.Scheme, scheme.Scheme, kind, kind.GroupVersion(), "", nil)
	if err != nil {
		return nil, err
	}
	live, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, err
	}
	live.GetObjectKind().SetGroupVersionKind(kind)
	answers := make([]Answer, 0, len(c.Steps))
	for _, step := range c.Steps {
		next, err := write(manager, kind, live, step)
		if err != nil {
			answers = append(answers, Answer{Error: explain(err)})
			continue
		}
		accessor, err := meta.Accessor(next)
		if err != nil {
			return nil, err
		}
		entries := accessor.GetManagedFields()
		for index := range entries {
			entries[index].Time = nil
		}
		accessor.SetManagedFields(entries)
		// What is told is read again, as a later request would do.
		text, err := json.Marshal(next)
		if err != nil {
			return nil, err
		}
		if live, err = decode(kind, text); err != nil {
			return nil, err
		}
		// An object that has a UID is one that was there before.
		if accessor, err = meta.Accessor(live); err != nil {
			return nil, err
		}
		accessor.SetUID("u")
		answers = append(answers, Answer{OK: json.RawMessage(text)})
	}
	return answers, nil
}

func write(manager *managedfields.FieldManager, kind schema.GroupVersionKind, live runtime.Object, step Step) (runtime.Object, error) {
	if step.Apply {
		config := &unstructured.Unstructured{}
		if err := json.Unmarshal(step.Object, &config.Object); err != nil {
			return nil, err
		}
		return manager.Apply(live, config, step.Manager, step.Force)
	}
	object, err := decode(kind, step.Object)
	if err != nil {
		return nil, err
	}
	// An update says which entries it saw.
	seen, err := meta.Accessor(live)
	if err != nil {
		return nil, err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	accessor.SetManagedFields(seen.GetManagedFields())
	accessor.SetUID(seen.GetUID())
	return manager.Update(live, object, step.Manager)
}

func decode(kind schema.GroupVersionKind, text []byte) (runtime.Object, error) {
	object, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, object); err != nil {
		return nil, err
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	return object, nil
}

// explain tells conflicts by their fields.
func explain(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsConflict(err) {
		return "refused: " + err.Error()
	}
	fields := []string{}
	for _, cause := range status.Status().Details.Causes {
		fields = append(fields, cause.Field)
	}
	// They come in the order of a map of managers.
	slices.Sort(fields)
	return "conflict: " + strings.Join(slices.Compact(fields), " ")
}
