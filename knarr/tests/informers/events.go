package main

import (
	"maps"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
)

// What a handler was told, object by object.
type replay struct {
	mutex sync.Mutex
	known map[string]string
}

func newReplay() *replay {
	return &replay{known: map[string]string{}}
}

func identity(object any) (key, version string) {
	accessor, err := meta.Accessor(object)
	check(err)
	return accessor.GetNamespace() + "/" + accessor.GetName(), accessor.GetResourceVersion()
}

func (events *replay) versions() map[string]string {
	events.mutex.Lock()
	defer events.mutex.Unlock()
	return maps.Clone(events.known)
}

// A handler which complains of what no handler may be told: an object that comes twice, one that changes or goes and was
// never there, one that becomes older.
func (events *replay) handler(name string) cache.ResourceEventHandler {
	told := func(object any, wasThere bool) (string, string) {
		key, version := identity(object)
		before, there := events.known[key]
		if there != wasThere {
			complain("%s: %s at %s: known before: %v", name, key, version, there)
		}
		if number(version) < number(before) {
			complain("%s: %s goes back from %s to %s", name, key, before, version)
		}
		return key, version
	}
	set := func(object any, wasThere bool) {
		events.mutex.Lock()
		defer events.mutex.Unlock()
		key, version := told(object, wasThere)
		events.known[key] = version
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { set(object, false) },
		UpdateFunc: func(_, object any) { set(object, true) },
		DeleteFunc: func(object any) {
			if last, missed := object.(cache.DeletedFinalStateUnknown); missed {
				object = last.Obj
			}
			events.mutex.Lock()
			defer events.mutex.Unlock()
			key, _ := told(object, true)
			delete(events.known, key)
		},
	}
}

func number(version string) uint64 {
	number, _ := strconv.ParseUint(version, 10, 64)
	return number
}
