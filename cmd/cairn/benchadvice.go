package main

import (
	"fmt"
	"strconv"
)

// levels are the kernels that compress text, by the words of --compression.
func levels() []string { return []string{"s2", "fastest", "default", "better"} }

func (doc *benchJSON) kernel(name string) kernelJSON {
	for _, k := range doc.Kernels {
		if k.Name == name {
			return k
		}
	}
	return kernelJSON{}
}

// produced returns how many bytes a second of packs all processors make of
// text at a level of compression, at most, and of how much content.
func (doc *benchJSON) produced(level string) (stored, content float64) {
	k := doc.kernel("compress-" + level + "/text")
	// What is stored is opened and hashed again before.
	seconds := 1 / k.Speed
	for name, times := range map[string]float64{"split/text": 1, "hash/random": 2, "decompress/text": 1, "seal/random": 1 / k.Ratio, "open/random": 1 / k.Ratio} {
		seconds += times / doc.kernel(name).Speed
	}
	content = float64(doc.Processors) / seconds
	return content / k.Ratio, content
}

// best returns the number of requests at once beyond which little is gained.
func (doc *benchJSON) best() storeJSON {
	best := doc.Store[0]
	for _, s := range doc.Store[1:] {
		if s.Put > 1.2*best.Put {
			best = s
		}
	}
	return best
}

// advise says what to set, a sentence each.
func (doc *benchJSON) advise() []string {
	best := doc.best()
	stored, content := doc.produced("fastest")
	advice := []string{fmt.Sprintf("Processors: the %d here prepare up to %s of text, so leave them all to Cairn unless the machine has other work (GOMAXPROCS takes some away).",
		doc.Processors, speed(content))}
	switch strongest := doc.strongest(best.Put); strongest {
	case "":
		advice = append(advice, fmt.Sprintf("Compression: the store takes %s and the processors make %s, so they are the limit: keep the default, or take --compression s2 where processor time counts more than room.",
			speed(best.Put), speed(stored)))
	default:
		advice = append(advice, fmt.Sprintf("Compression: the store takes %s, which is less than the processors make: --compression %s sends less and costs no time.", speed(best.Put), strongest))
	}
	return append(advice, fmt.Sprintf("Limits: little is gained by more requests at once than %d; --limit-upload %s leaves half of the way to the store to others.", best.Parallel, half(best.Put)))
}

// strongest returns the level that compresses most of those at which the
// processors still make more than the store takes; "" if none do.
func (doc *benchJSON) strongest(takes float64) (name string) {
	for _, level := range levels() {
		if stored, _ := doc.produced(level); stored > takes && level != "s2" {
			name = level
		}
	}
	return name
}

func speed(bytes float64) string { return strconv.FormatFloat(bytes/1e6, 'f', 1, 64) + " MB/s" }

// half returns half a speed as --limit-upload takes it.
func half(bytes float64) string { return strconv.FormatInt(max(1, int64(bytes/2/1024)), 10) + "K" }

func (a *app) printBench(doc benchJSON) error {
	var t table
	t.row("ONE PROCESSOR", "SPEED", "RATIO")
	for _, k := range doc.Kernels {
		ratio := ""
		if k.Ratio > 0 {
			ratio = strconv.FormatFloat(k.Ratio, 'f', 2, 64)
		}
		t.row(k.Name, speed(k.Speed), ratio)
	}
	t.row("")
	t.row("REQUESTS AT ONCE", "PUT", "GET")
	for _, s := range doc.Store {
		t.row(strconv.Itoa(s.Parallel), speed(s.Put), speed(s.Get))
	}
	if err := t.print(a.out); err != nil {
		return err
	}
	a.out.result("%s: put of 1 KiB %.1f ms, get %.1f ms", printable(doc.Location), doc.PutLatency*1e3, doc.GetLatency*1e3)
	for _, text := range doc.Advice {
		a.out.result("%s", text)
	}
	return nil
}
