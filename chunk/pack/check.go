package pack

import "encoding/binary"

// Check returns the first four bytes of the ID as a number: enough to tell the
// packs of two histories apart that were given the same number.
func (id ID) Check() uint32 { return binary.LittleEndian.Uint32(id[:]) }
