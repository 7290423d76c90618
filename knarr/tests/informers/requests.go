package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// How the informers asked and what they got.
type requests struct {
	mutex                       sync.Mutex
	watchLists, lists, binaries int
}

type transport func(*http.Request) (*http.Response, error)

func (send transport) RoundTrip(request *http.Request) (*http.Response, error) { return send(request) }

func (seen *requests) wrap(next http.RoundTripper) http.RoundTripper {
	return transport(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err != nil || response.StatusCode != http.StatusOK || request.Method != http.MethodGet {
			return response, err
		}
		seen.mutex.Lock()
		defer seen.mutex.Unlock()
		query := request.URL.Query()
		switch {
		case query.Get("sendInitialEvents") == "true":
			seen.watchLists++
			if strings.HasPrefix(response.Header.Get("Content-Type"), protobuf) {
				seen.binaries++
			}
		case query.Get("watch") != "true":
			seen.lists++
		}
		return response, err
	})
}

// Complains unless every informer got its first objects by a watch, those that ask for it in protobuf.
func (seen *requests) report(informers int) {
	seen.mutex.Lock()
	defer seen.mutex.Unlock()
	fmt.Printf("%d lists by watch, %d of them protobuf, %d lists\n", seen.watchLists, seen.binaries, seen.lists)
	if seen.watchLists != informers || seen.binaries != informers*2/3 || seen.lists != 0 {
		complain("%d informers were to list by watch, two thirds of them in protobuf", informers)
	}
}
