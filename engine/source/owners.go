package source

import (
	"bufio"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
)

// owners knows the names of users and groups. It reads the files of the system
// once, since os/user reads them for each question, and asks os/user for what
// is not in them, once.
type owners struct {
	users, groups nameTable
}

func (o *owners) user(id uint32) string {
	return o.users.name(id, "/etc/passwd", func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (o *owners) group(id uint32) string {
	return o.groups.name(id, "/etc/group", func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// A nameTable knows the names of numbers of one sort.
type nameTable struct {
	mu   sync.Mutex        // guards byID
	byID map[uint32]string // "": has none
}

// name returns the name of id, "" if it has none.
func (n *nameTable) name(id uint32, file string, ask func(string) (string, error)) string {
	n.mu.Lock()
	if n.byID == nil {
		n.byID = readNames(file)
	}
	name, known := n.byID[id]
	n.mu.Unlock()
	if known {
		return name
	}
	name, err := ask(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		name = "" // it has none that can be found out: the number is kept
	}
	n.mu.Lock()
	n.byID[id] = name
	n.mu.Unlock()
	return name
}

// readNames reads a file of lines "name:password:id:...". A file that is not
// there has no names.
func readNames(file string) map[uint32]string {
	byID := map[uint32]string{}
	f, err := os.Open(file)
	if err != nil {
		return byID
	}
	defer f.Close() //nolint:errcheck // nothing was written to it
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.SplitN(s.Text(), ":", 4)
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if _, taken := byID[uint32(id)]; err == nil && !taken {
			byID[uint32(id)] = fields[0]
		}
	}
	return byID
}
