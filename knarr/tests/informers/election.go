package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Two candidates for one Lease, of which the first leads.
type election struct {
	leave  context.CancelFunc
	left   atomic.Bool
	second chan struct{}
	client kubernetes.Interface
}

func elect(ctx context.Context, client kubernetes.Interface) *election {
	one := &election{second: make(chan struct{}), client: client}
	first, leave := context.WithCancel(ctx)
	one.leave = leave
	leads := make(chan struct{})
	go one.stand(first, "first", leads)
	<-leads
	go one.stand(ctx, "second", one.second)
	return one
}

// One candidate, until it has led and lost.
func (one *election) stand(ctx context.Context, name string, leads chan<- struct{}) {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "election"},
		Client:     one.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				if name == "second" && !one.left.Load() {
					complain("the second candidate leads while the first one does")
				}
				close(leads)
			},
			OnStoppedLeading: func() {
				if name == "first" && !one.left.Load() {
					complain("the first candidate lost its Lease")
				}
			},
		},
	})
}

// The first candidate must still lead. It leaves, and the second one follows.
func (one *election) hand(ctx context.Context) error {
	holder := func() (string, int32, error) {
		lease, err := one.client.CoordinationV1().Leases(namespace).Get(ctx, "election", metav1.GetOptions{})
		if err != nil {
			return "", 0, err
		}
		return *lease.Spec.HolderIdentity, *lease.Spec.LeaseTransitions, nil
	}
	before, transitions, err := holder()
	if err != nil || before != "first" {
		return fmt.Errorf("%q leads: %v", before, err)
	}
	one.left.Store(true)
	one.leave()
	select {
	case <-one.second:
	case <-time.After(patience):
		return fmt.Errorf("nobody follows the first leader")
	}
	after, more, err := holder()
	if err != nil || after != "second" || more != transitions+1 {
		return fmt.Errorf("%q leads after %d changes, %d before: %v", after, more, transitions, err)
	}
	fmt.Println("the second candidate leads")
	return nil
}
