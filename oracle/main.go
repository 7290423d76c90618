// Oracle answers with upstream's own libraries what Knarr answers with its own: one case a line in, one answer a line out.
//
// `cargo xtask oracle` builds it from Debian's packages and asks it; see docs/development.md.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// Case is a question. Which fields it has depends on Op.
type Case struct {
	Op         string            `json:"op"`
	APIVersion string            `json:"apiVersion,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Original   json.RawMessage   `json:"original,omitempty"`
	Modified   json.RawMessage   `json:"modified,omitempty"`
	Current    json.RawMessage   `json:"current,omitempty"`
	Patch      json.RawMessage   `json:"patch,omitempty"`
	Steps      []Step            `json:"steps,omitempty"`
	Text       string            `json:"text,omitempty"`
	Other      string            `json:"other,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Answer is a result or an error.
type Answer struct {
	OK    any    `json:"ok,omitempty"`
	Error string `json:"error,omitempty"`
}

var operations = map[string]func(*Case) (any, error){
	"strategic": strategic,
	"two-way":   twoWay,
	"three-way": threeWay,
	"json":      jsonPatch,
	"merge":     mergePatch,
	"apply":     apply,
	"labels":    labelSelector,
	"fields":    fieldSelector,
	"quantity":  quantity,
	"yaml":      yamlDocument,
	"rule":      customRule,
	"schema":    customResource,
}

func answer(line []byte) (result Answer) {
	defer func() {
		if problem := recover(); problem != nil {
			result = Answer{Error: fmt.Sprintf("panic: %v", problem)}
		}
	}()
	var question Case
	if err := json.Unmarshal(line, &question); err != nil {
		return Answer{Error: "bad case: " + err.Error()}
	}
	operation, found := operations[question.Op]
	if !found {
		return Answer{Error: "bad case: no operation " + question.Op}
	}
	ok, err := operation(&question)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	return Answer{OK: ok}
}

func main() {
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			if err := encoder.Encode(answer(line)); err != nil {
				panic(err)
			}
			if in.Buffered() == 0 {
				out.Flush()
			}
		}
		if err != nil {
			break
		}
	}
	out.Flush()
}
