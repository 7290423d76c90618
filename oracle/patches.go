package main

import (
	"encoding/json"

	jsonpatch "github.com/evanphx/json-patch"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

func typeOf(c *Case) (runtime.Object, error) {
	return scheme.Scheme.New(schema.FromAPIVersionAndKind(c.APIVersion, c.Kind))
}

func strategic(c *Case) (any, error) {
	object, err := typeOf(c)
	if err != nil {
		return nil, err
	}
	patched, err := strategicpatch.StrategicMergePatch(c.Original, c.Patch, object)
	return json.RawMessage(patched), err
}

// made is a patch that upstream made, and what comes of it.
type made struct {
	Patch  json.RawMessage `json:"patch"`
	Result json.RawMessage `json:"result"`
}

func twoWay(c *Case) (any, error) {
	object, err := typeOf(c)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(c.Original, c.Modified, object)
	if err != nil {
		return nil, err
	}
	result, err := strategicpatch.StrategicMergePatch(c.Original, patch, object)
	return made{patch, result}, err
}

func threeWay(c *Case) (any, error) {
	object, err := typeOf(c)
	if err != nil {
		return nil, err
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(object)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(c.Original, c.Modified, c.Current, meta, true)
	if err != nil {
		return nil, err
	}
	result, err := strategicpatch.StrategicMergePatch(c.Current, patch, object)
	return made{patch, result}, err
}

func jsonPatch(c *Case) (any, error) {
	patch, err := jsonpatch.DecodePatch(c.Patch)
	if err != nil {
		return nil, err
	}
	patched, err := patch.Apply(c.Original)
	return json.RawMessage(patched), err
}

func mergePatch(c *Case) (any, error) {
	patched, err := jsonpatch.MergePatch(c.Original, c.Patch)
	return json.RawMessage(patched), err
}
