package main

import (
	"context"
	"encoding/json"
	"sort"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
)

// compiledSchema is the schema of a case in both of upstream's forms.
func compiledSchema(raw json.RawMessage) (*apiextensions.JSONSchemaProps, *structural.Structural, error) {
	var external v1.JSONSchemaProps
	if err := json.Unmarshal(raw, &external); err != nil {
		return nil, nil, err
	}
	var internal apiextensions.JSONSchemaProps
	if err := v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&external, &internal, nil); err != nil {
		return nil, nil, err
	}
	found, err := structural.NewStructural(&internal)
	return &internal, found, err
}

func customObject(raw json.RawMessage) (map[string]interface{}, error) {
	out := map[string]interface{}{}
	return out, utiljson.Unmarshal(raw, &out)
}

func errorTexts(errors field.ErrorList) []string {
	out := []string{}
	for _, err := range errors {
		out = append(out, err.Error())
	}
	sort.Strings(out)
	return out
}

// customRule compiles the one rule of a schema's root, estimates what it costs, and asks it of an object.
func customRule(c *Case) (any, error) {
	_, schema, err := compiledSchema(c.Original)
	if err != nil {
		return nil, err
	}
	environments := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	declared := model.SchemaDeclType(schema, true)
	results, err := cel.Compile(schema, declared, celconfig.PerCallLimit, environments, cel.NewExpressionsEnvLoader())
	if err != nil {
		return nil, err
	}
	if results[0].Error != nil {
		return map[string]any{"wrong": results[0].Error.Detail}, nil
	}
	value, err := customObject(c.Current)
	if err != nil {
		return nil, err
	}
	validator := cel.NewValidator(schema, true, celconfig.PerCallLimit)
	found, _ := validator.Validate(context.TODO(), nil, schema, value, nil, celconfig.RuntimeCELCostBudget)
	return map[string]any{"cost": results[0].MaxCost, "errors": errorTexts(found)}, nil
}

// customResource prunes an object, fills in defaults, and validates it, alone and as a change of another one.
func customResource(c *Case) (any, error) {
	internal, schema, err := compiledSchema(c.Original)
	if err != nil {
		return nil, err
	}
	value, err := customObject(c.Current)
	if err != nil {
		return nil, err
	}
	old, err := customObject(c.Modified)
	if err != nil {
		return nil, err
	}
	options := structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	unknown := append([]string{}, pruning.PruneWithOptions(value, schema, true, options)...)
	sort.Strings(unknown)
	pruning.Prune(old, schema, true)
	for _, one := range []map[string]interface{}{value, old} {
		defaulting.PruneNonNullableNullsWithoutDefaults(one, schema)
		defaulting.Default(one, schema)
	}
	validator, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, err
	}
	lists := listtype.ValidateListSetsAndMaps(nil, schema, value)
	created := append(validation.ValidateCustomResource(nil, value, validator), lists...)
	related := common.NewCorrelatedObject(value, old, &model.Structural{Structural: schema})
	updated := validation.ValidateCustomResourceUpdate(nil, value, old, validator, validation.WithRatcheting(related))
	if len(listtype.ValidateListSetsAndMaps(nil, schema, old)) == 0 {
		updated = append(updated, lists...)
	}
	return map[string]any{"object": value, "unknown": unknown, "created": errorTexts(created), "updated": errorTexts(updated)}, nil
}
