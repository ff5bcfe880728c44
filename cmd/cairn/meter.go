package main

import (
	"strings"

	"github.com/cheggaaa/pb/v3"

	"github.com/cairn-backup/cairn/engine/progress"
)

// A meter shows how far one operation is, how fast it goes, and how long it
// will take, as a bar on a terminal or as plain text. It is not for concurrent
// use.
type meter struct {
	out   *output
	bar   *pb.ProgressBar
	phase progress.Phase
	known bool // how much there is
}

// What is shown: "read  812.00 MiB / 3.10 GiB  [---->_____]  95.2 MiB/s  24s left  1,204 files",
// and, while nobody knows how much there is, the time that has passed and no bar.
// Without an element that takes what is left of the line it would not be cut.
const (
	knownBar   = `{{string . "phase"}}  {{counters .}}  {{bar .}}  {{speed . "%s/s" "-"}}  {{rtime . "%s left" "%s" "-"}}{{string . "more"}}`
	greenBar   = `{{string . "phase"}}  {{counters .}}  {{bar . (green "[") (green "-") (green ">") "_" (green "]")}}  {{speed . "%s/s" "-"}}  {{rtime . "%s left" "%s" "-"}}{{string . "more"}}`
	unknownBar = `{{string . "phase"}}  {{counters .}}  {{speed . "%s/s" "-"}}  {{etime .}}{{string . "more"}}{{bar . " " " " " " " " " "}}`
	knownText  = `{{string . "phase"}}  {{counters .}}  {{speed . "%s/s" "-"}}  {{rtime . "%s left" "%s" "-"}}{{string . "more"}}`
	plainText  = `{{string . "phase"}}  {{counters .}}  {{speed . "%s/s" "-"}}  {{etime .}}{{string . "more"}}`
)

func newMeter(out *output) *meter { return &meter{out: out} }

// set takes over the numbers of a tick. Each phase has a rate of its own.
func (m *meter) set(t progress.Tick) {
	known := t.Bytes.Total > 0
	if m.bar == nil || m.phase != t.Phase || m.known != known {
		m.phase, m.known = t.Phase, known
		m.bar = pb.New64(0).SetTemplateString(m.template()).SetWriter(m.out.stderr)
		// Drawn when there are news, and by nobody else.
		m.bar.Set(pb.Static, true).Set(pb.Bytes, true).Set(pb.Color, m.out.colours)
		m.bar.Set(pb.Terminal, m.out.live).Set(pb.ReturnSymbol, "\r").Set("phase", string(t.Phase))
		m.bar.Start()
	}
	m.bar.SetTotal(t.Bytes.Total).SetCurrent(t.Bytes.Done).Set("more", more(t))
}

func (m *meter) template() string {
	switch {
	case m.out.live && m.known && m.out.colours:
		return greenBar
	case m.out.live && m.known:
		return knownBar
	case m.out.live:
		return unknownBar
	case m.known:
		return knownText
	}
	return plainText
}

// line returns the numbers as plain text.
func (m *meter) line() string { return m.bar.String() }

// more is what stands at the end: files, and what is special.
func more(t progress.Tick) string {
	var parts []string
	switch {
	case t.Files.Total > 0:
		parts = append(parts, count(t.Files.Done)+" of "+count(t.Files.Total)+" files")
	case t.Files.Done > 0:
		parts = append(parts, plural(t.Files.Done, "file", "files"))
	}
	if t.New > 0 {
		parts = append(parts, "new "+size(t.New))
	}
	if t.Retries > 0 {
		parts = append(parts, plural(t.Retries, "retry", "retries"))
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, "  ")
}
