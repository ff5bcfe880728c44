package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, tt := range []struct {
		name, events string
		want, last   string
		ok           bool
	}{
		{name: "pass and skip", ok: true, last: "2 passed, 0 failed, 1 skipped", want: "skipped: p TestC: c_test.go:9: needs root", events: `
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"pass","Package":"p","Elapsed":1}`},
		{name: "fail", last: "1 passed, 1 failed, 0 skipped", want: "got 1, want 2", events: `
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}`},
		{name: "panic", last: "1 passed, 1 failed, 0 skipped", want: "panic: boom", events: `
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}`},
		{name: "build", last: "0 passed, 1 failed, 0 skipped", want: "undefined: x", events: `
{"Action":"build-output","ImportPath":"p","Output":"undefined: x\n"}
{"Action":"build-fail","ImportPath":"p"}
{"Action":"fail","Package":"p"}`},
		{name: "nothing ran", last: "0 passed, 0 failed, 0 skipped", events: `{"Action":"skip","Package":"p"}`},
		{name: "not an event", ok: true, last: "1 passed, 0 failed, 0 skipped", want: "go: downloading x", events: `
go: downloading x
{"Action":"pass","Package":"p","Test":"TestA"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			tally := newTally(&out)
			if err := tally.read(strings.NewReader(strings.TrimSpace(tt.events) + "\n")); err != nil {
				t.Fatal(err)
			}
			tally.summary()
			got := strings.TrimSpace(out.String())
			if last := got[strings.LastIndex(got, "\n")+1:]; last != tt.last {
				t.Errorf("last line %q, want %q", last, tt.last)
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("output lacks %q:\n%s", tt.want, got)
			}
			if tally.ok() != tt.ok {
				t.Errorf("ok() = %t, want %t", tally.ok(), tt.ok)
			}
		})
	}
}

func TestIsDeadline(t *testing.T) {
	if !isDeadline([]byte("--- FAIL: FuzzX (3.20s)\n    context deadline exceeded\nFAIL\n")) {
		t.Error("the race of the fuzzing engine is not recognised")
	}
	for _, said := range []string{"context deadline exceeded\nFailing input written to testdata/fuzz/x", "panic: x", "wrong"} {
		if isDeadline([]byte(said)) {
			t.Errorf("%q passes for the race of the fuzzing engine", said)
		}
	}
}
