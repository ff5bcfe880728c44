package manifest

import (
	"strconv"
	"strings"
)

// maxRootName keeps the names of roots within what filesystems hold, in bytes.
const maxRootName = 255

// UniqueNames returns a root for each path, in the same order, and gives each a
// name that no other root has: the last element of the path, with as many
// elements before it, joined by "_", as tell it from the others. "/" is called
// "root", and the volume of a Windows path ("C:/") goes by its letter. Paths are
// absolute, with slashes, as raw bytes. If that does not tell two paths apart
// (the same path twice, or "/a_b/c" and "/a/b_c") the later ones get a number.
//
// The names depend on the paths alone, and the numbers on their order. Each name
// can stand in a directory list, which wants them sorted.
func UniqueNames(paths []string) []Root {
	elements := make([][]string, len(paths))
	use := make([]int, len(paths)) // how many of the elements make the name
	roots := make([]Root, len(paths))
	for i, p := range paths {
		elements[i] = splitPath(p)
		use[i] = 1
		roots[i] = Root{Path: p, Name: joinLast(elements[i], 1)}
	}
	for lengthen(elements, use, roots) {
	}
	number(roots)
	return roots
}

// splitPath returns the elements of an absolute path, at least one.
func splitPath(p string) []string {
	if len(p) >= 2 && p[1] == ':' && p[0] != '/' {
		p = p[:1] + "/" + p[2:] // C:/data
	}
	var list []string
	for e := range strings.SplitSeq(p, "/") {
		if e != "" && e != "." && e != ".." {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return []string{"root"}
	}
	return list
}

func joinLast(elements []string, n int) string {
	name := strings.Join(elements[len(elements)-n:], "_")
	if len(name) > maxRootName {
		name = name[len(name)-maxRootName:]
	}
	return name
}

// lengthen gives roots whose name is not unique one element more. It reports
// whether any had one.
func lengthen(elements [][]string, use []int, roots []Root) bool {
	count := make(map[string]int, len(roots))
	for _, r := range roots {
		count[r.Name]++
	}
	changed := false
	for i := range roots {
		if count[roots[i].Name] > 1 && use[i] < len(elements[i]) {
			use[i]++
			roots[i].Name = joinLast(elements[i], use[i])
			changed = true
		}
	}
	return changed
}

// number tells names apart that are still equal.
func number(roots []Root) {
	count := make(map[string]int, len(roots))
	for _, r := range roots {
		count[r.Name]++
	}
	taken := make(map[string]bool, len(roots))
	for name := range count {
		taken[name] = true
	}
	first := make(map[string]bool, len(roots))
	for i, r := range roots {
		if count[r.Name] > 1 && first[r.Name] {
			roots[i].Name = free(r.Name, taken)
			taken[roots[i].Name] = true
		}
		first[r.Name] = true
	}
}

// free returns name with the first number that makes it new.
func free(name string, taken map[string]bool) string {
	for n := 2; ; n++ {
		suffix := "_" + strconv.Itoa(n)
		if s := name[:min(len(name), maxRootName-len(suffix))] + suffix; !taken[s] {
			return s
		}
	}
}
