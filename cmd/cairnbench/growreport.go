package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// An exponent says how a figure of a part grows: as the size to the power of it,
// fitted by least squares of the logarithms. 0 is constant, 1 in proportion.
type exponent struct {
	Part  string  `json:"part"`
	Name  string  `json:"name"`
	Power float64 `json:"power"`
}

// exponents fits every figure that is there and positive at two sizes or more.
func exponents(all []growth) (fits []exponent) {
	for _, part := range growParts() {
		of := ofPart(all, part)
		for _, name := range figureNames(of) {
			if power, ok := fit(of, name); ok {
				fits = append(fits, exponent{part, name, power})
			}
		}
	}
	return fits
}

func ofPart(all []growth, part string) (of []growth) {
	for _, g := range all {
		if g.Part == part {
			of = append(of, g)
		}
	}
	return of
}

// figureNames returns the names of figures, each once, in their order.
func figureNames(of []growth) (names []string) {
	for _, g := range of {
		for _, f := range g.Figures {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

// value returns a figure by its name.
func (g growth) value(name string) (float64, bool) {
	for _, f := range g.Figures {
		if f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

// fit returns the slope of a line through the logarithms of sizes and values.
func fit(of []growth, name string) (power float64, ok bool) {
	var n, x, y, xx, xy float64
	for _, g := range of {
		v, there := g.value(name)
		if !there || v <= 0 {
			continue
		}
		lx, ly := math.Log(float64(g.Size)), math.Log(v)
		n, x, y, xx, xy = n+1, x+lx, y+ly, xx+lx*lx, xy+lx*ly
	}
	if d := n*xx - x*x; n >= 2 && d > 1e-9 {
		return (n*xy - x*y) / d, true
	}
	return 0, false
}

// writeGrowth prints a table for each part.
func writeGrowth(w io.Writer, about map[string]string, all []growth) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range slices.Sorted(maps.Keys(about)) {
		if _, err := fmt.Fprintf(w, "%s: %s\n", name, about[name]); err != nil {
			return err
		}
	}
	for _, part := range growParts() {
		of := ofPart(all, part)
		if len(of) == 0 {
			continue
		}
		row := []string{"\n" + part}
		for _, g := range of {
			row = append(row, strconv.FormatUint(g.Size, 10))
		}
		writeRow(t, append(row, "power"))
		for _, name := range figureNames(of) {
			row := []string{name}
			for _, g := range of {
				v, _ := g.value(name) // 0 where it is missing
				row = append(row, strconv.FormatFloat(v, 'g', 4, 64))
			}
			if power, ok := fit(of, name); ok {
				row = append(row, strconv.FormatFloat(power, 'f', 2, 64))
			}
			writeRow(t, row)
		}
	}
	return t.Flush()
}

func writeRow(w io.Writer, cells []string) {
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") // a tabwriter keeps its error for Flush
}

// statusField returns the number of a field in the text of /proc/self/status.
func statusField(text, name string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n // 0 where it is none
		}
	}
	return 0
}
