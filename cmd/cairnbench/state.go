package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A state is what is known about a working directory, so that a run that was
// interrupted, or that had done only some tools or operations, can go on.
type state struct {
	Schema   int      `json:"schema"`
	Scale    float64  `json:"scale"`
	NoGoroot bool     `json:"no_goroot"`
	Results  []result `json:"results"`
	// Data is what the directory of the data holds.
	Data dataState `json:"data"`
	// Chains says how far each round of a set is with each tool.
	Chains map[string]progress `json:"chains"`
	// Running is the chain of which an operation is being measured. After an
	// interruption nobody knows what it did, so it begins anew.
	Running string `json:"running"`

	path string
}

// A progress says how far a tool is with one round of a set.
type progress struct {
	Made int `json:"made"` // with which making of the data it began: with another, the times of the files differ
	Ops  int `json:"ops"`  // how many of the operations are behind it
}

// A dataState says what the directory of the data holds.
type dataState struct {
	Set     string `json:"set"`     // "" if it holds nothing of use
	Changes int    `json:"changes"` // how often it was changed
	Made    int    `json:"made"`    // how often any set was made
}

// loadState reads the state of a working directory; a new one is empty.
func loadState(dir string, o options) (*state, error) {
	s := &state{
		Schema: 1, Scale: o.scale, NoGoroot: o.noGoroot, Chains: make(map[string]progress),
		path: filepath.Join(dir, "state.json"),
	}
	p, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(p, s); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	if s.Schema != 1 || s.Scale != o.scale || s.NoGoroot != o.noGoroot {
		return nil, fmt.Errorf("%s holds measurements at scale %g: give the same --scale and --no-goroot, or another --dir", dir, s.Scale)
	}
	if s.Running != "" {
		s.drop(s.Running)
	}
	return s, nil
}

// save writes the state; a crash leaves the old or the new one.
func (s *state) save() error {
	p, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", p, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}

// chain names a round of a set with a tool.
func chain(set string, round int, tool string) string {
	return fmt.Sprintf("%s-%d-%s", set, round, tool)
}

func (r result) chain() string { return chain(r.Set, r.Round, r.Tool) }

// drop forgets a chain: it begins anew.
func (s *state) drop(name string) {
	s.Results = slices.DeleteFunc(s.Results, func(r result) bool { return r.chain() == name })
	delete(s.Chains, name)
	s.Running = ""
}
