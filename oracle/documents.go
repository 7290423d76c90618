package main

import (
	"encoding/json"

	"sigs.k8s.io/yaml"
)

type document struct {
	Value json.RawMessage `json:"value"`
	// Strict is what is wrong with the document for who asks for strictness: duplicate keys.
	Strict string `json:"strict"`
}

// yamlDocument reads YAML as the serializer of the API server does.
func yamlDocument(c *Case) (any, error) {
	value, err := yaml.YAMLToJSON([]byte(c.Text))
	if err != nil {
		return nil, err
	}
	strict := ""
	if _, err := yaml.YAMLToJSONStrict([]byte(c.Text)); err != nil {
		strict = err.Error()
	}
	return document{value, strict}, nil
}
