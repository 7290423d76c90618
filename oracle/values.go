package main

import (
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

type selected struct {
	Text    string `json:"text"`
	Matches bool   `json:"matches"`
}

func labelSelector(c *Case) (any, error) {
	selector, err := labels.Parse(c.Text)
	if err != nil {
		return nil, err
	}
	return selected{selector.String(), selector.Matches(labels.Set(c.Labels))}, nil
}

func fieldSelector(c *Case) (any, error) {
	selector, err := fields.ParseSelector(c.Text)
	if err != nil {
		return nil, err
	}
	return selected{selector.String(), selector.Matches(fields.Set(c.Labels))}, nil
}

type amount struct {
	// Text is the canonical form, Kept what a field that nobody computes with is written as.
	Text  string `json:"text"`
	Kept  string `json:"kept"`
	Value int64  `json:"value"`
	Milli int64  `json:"milli"`
	Order int    `json:"order"`
}

func quantity(c *Case) (any, error) {
	one, err := resource.ParseQuantity(c.Text)
	if err != nil {
		return nil, err
	}
	other, err := resource.ParseQuantity(c.Other)
	if err != nil {
		return nil, err
	}
	number, suffix := one.CanonicalizeBytes(nil)
	return amount{string(number) + string(suffix), one.String(), one.Value(), one.MilliValue(), one.Cmp(other)}, nil
}
