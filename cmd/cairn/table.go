package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// A table is text in columns two spaces apart, each as wide as its widest cell.
// What is printed in portions may get wider as it goes on.
type table struct {
	rows   [][]string
	widths []int
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the rows since the last print, without spaces at the ends of lines.
func (t *table) print(w io.Writer) error {
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	t.rows = nil
	_, err := io.WriteString(w, b.String())
	return err
}
