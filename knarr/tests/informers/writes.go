package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
)

const namespace = "default"

// Writes objects of several kinds, in protobuf, until it is stopped, and says how many writes were acknowledged. A
// server that is away is asked again.
func write(ctx context.Context, client kubernetes.Interface, stop <-chan struct{}) <-chan int {
	done := make(chan int, 1)
	go func() {
		count := 0
		for round := 0; ; round++ {
			for _, step := range steps(ctx, client, fmt.Sprintf("w-%d", round)) {
				select {
				case <-stop:
					done <- count
					return
				default:
				}
				if until(step) {
					count++
				}
			}
		}
	}()
	return done
}

// Repeats a write while nobody answers. An answer that an earlier try had been carried out is one, too.
func until(step func() error) bool {
	for {
		err := step()
		switch {
		case err == nil, apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
			return true
		case net.IsConnectionRefused(err), net.IsConnectionReset(err), net.IsProbableEOF(err), net.IsHTTP2ConnectionLost(err),
			net.IsTimeout(err), apierrors.IsServiceUnavailable(err), apierrors.IsTooManyRequests(err):
			time.Sleep(20 * time.Millisecond)
		default:
			complain("write: %v", err)
			return false
		}
	}
}

// The writes of one round: three kinds are made, changed, and two of them deleted.
func steps(ctx context.Context, client kubernetes.Interface, name string) []func() error {
	core := client.CoreV1()
	meta := metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}
	create, patch, remove := metav1.CreateOptions{}, metav1.PatchOptions{}, metav1.DeleteOptions{}
	label := []byte(`{"metadata":{"labels":{"changed":"yes"}}}`)
	pod := corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}}
	return []func() error{
		func() error {
			_, err := core.ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "v"}}, create)
			return err
		},
		func() error {
			_, err := core.Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"k": {0, 255}}}, create)
			return err
		},
		func() error {
			spec := appsv1.DeploymentSpec{Replicas: new(int32), Selector: metav1.SetAsLabelSelector(meta.Labels),
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: pod}}
			_, err := client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{ObjectMeta: meta, Spec: spec}, create)
			return err
		},
		func() error {
			_, err := core.ConfigMaps(namespace).Patch(ctx, name, types.MergePatchType, label, patch)
			return err
		},
		func() error {
			_, err := core.Secrets(namespace).Patch(ctx, name, types.StrategicMergePatchType, label, patch)
			return err
		},
		func() error { return core.Secrets(namespace).Delete(ctx, name, remove) },
		func() error { return client.AppsV1().Deployments(namespace).Delete(ctx, name, remove) },
	}
}
