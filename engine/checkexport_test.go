package engine

import (
	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
)

// LedgerName is the file that says which packs were verified when.
const LedgerName = ledgerName

// PackKinds returns the live packs as far as r has read the log, and their kinds.
func (r *Repository) PackKinds() map[backend.Key]string {
	kinds := make(map[backend.Key]string)
	_ = r.log.View(func(st *log.State) error { // the function returns nil
		for _, info := range st.Packs() {
			kinds[layout.Pack(info.ID)] = info.Kind.String()
		}
		return nil
	})
	return kinds
}
