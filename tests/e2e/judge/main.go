// Decodes each line {"type": NAME, "value": …} of standard input into the Go type of that name, without tolerance for a field
// that it does not have, and writes it encoded again. The inner types are Kubernetes' own; the outer ones have the fields that
// interLink's plugin API has on its wire.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"

	core "k8s.io/api/core/v1"
)

type request struct {
	Pod        core.Pod                     `json:"pod"`
	ConfigMaps []core.ConfigMap             `json:"configmaps"`
	Secrets    []core.Secret                `json:"secrets"`
	Claims     []core.PersistentVolumeClaim `json:"persistentvolumes"`
	Projected  []core.ConfigMap             `json:"projectedvolumesmaps"`
	ScriptURL  string                       `json:"jobscriptURL"`
}

type retrieved struct {
	Pod        core.Pod `json:"pod"`
	Containers []struct {
		Name       string                       `json:"name"`
		ConfigMaps []core.ConfigMap             `json:"configMaps"`
		Projected  []core.ConfigMap             `json:"projectedvolumemaps"`
		Secrets    []core.Secret                `json:"secrets"`
		EmptyDirs  []string                     `json:"emptyDirs"`
		Claims     []core.PersistentVolumeClaim `json:"persistentVolumeClaims"`
	} `json:"container"`
	Script json.RawMessage `json:"jobConfig,omitempty"`
	Job    string          `json:"jobScript,omitempty"`
}

type created struct {
	UID string `json:"PodUID"`
	JID string `json:"PodJID"`
}

type status struct {
	Name       string                 `json:"name"`
	UID        string                 `json:"UID"`
	Namespace  string                 `json:"namespace"`
	JID        string                 `json:"JID"`
	Containers []core.ContainerStatus `json:"containers"`
	Inits      []core.ContainerStatus `json:"initContainers"`
}

type logs struct {
	Namespace, PodUID, PodName, ContainerName string
	Opts                                      struct {
		Tail, Bytes                  int
		Timestamps, Follow, Previous bool
		SinceSeconds                 int
		SinceTime                    time.Time
	}
}

type ping struct {
	Status    string `json:"status"`
	Resources *struct {
		CPU          string `json:"cpu"`
		Memory       string `json:"memory"`
		Pods         string `json:"pods"`
		Accelerators []struct {
			Type      string `json:"resourceType"`
			Available string `json:"available"`
		} `json:"accelerators"`
	} `json:"resources"`
	Taints []core.Taint `json:"taints"`
}

func read[T any](value []byte) (any, error) {
	var into T
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&into)
	return into, err
}

var types = map[string]func([]byte) (any, error){
	"request":   read[request],
	"retrieved": read[retrieved],
	"created":   read[created],
	"status":    read[[]status],
	"logs":      read[logs],
	"ping":      read[ping],
	"pods":      read[[]core.Pod],
	"pod":       read[core.Pod],
}

func judge(line []byte) (any, error) {
	var asked struct {
		Type  string          `json:"type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	read, known := types[asked.Type]
	if !known {
		return nil, fmt.Errorf("no type %q", asked.Type)
	}
	return read(asked.Value)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		value, err := judge(lines.Bytes())
		answer := map[string]any{"value": value}
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			panic(err)
		}
	}
}
