package manifest

import (
	"fmt"

	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/chunk/wire"
)

// A node is stored as
//
//	uvarint flags (below)
//	bytes   name
//	uvarint mode | uvarint uid | uvarint gid
//	[owner]   bytes owner | bytes group
//	svarint mtime seconds | u32 mtime nanoseconds
//	[link]    uvarint link
//	[look]    uvarint dev | uvarint ino | unless [same]: svarint ctime seconds - mtime seconds | u32 ctime nanoseconds
//	[xattrs]  uvarint count | count times: bytes name | bytes value      at most maxXattrsHere bytes
//	[xchunk]  32 ID of the chunk that holds them
//	by kind
//	  file      uvarint size | by form: bytes inline, or uvarint count | extents, or 32 ID of the list
//	  dir       32 ID of the list
//	  symlink   bytes target
//	  char, block  uvarint device
//
// "bytes" is a uvarint length and so many bytes; svarint is zigzag; u32 is
// little-endian. Where a part can be left out it must be: a node has one
// encoding. The flags also are the version: a reader refuses bits it does not
// know.
const (
	nodeKind   = 7 << 0
	nodeOwner  = 1 << 3
	nodeLook   = 1 << 4
	nodeSame   = 1 << 5 // ctime equals mtime, as after the first write
	nodeXattrs = 1 << 6
	nodeXchunk = 1 << 7
	nodeLink   = 1 << 8
	nodeChange = 1 << 9
	nodeForm   = 3 << 10
	nodeAll    = 1<<12 - 1

	formEmpty   = 0 << 10
	formInline  = 1 << 10
	formExtents = 2 << 10
	formList    = 3 << 10
)

// maxXattrsHere is how many bytes of attributes, encoded, a node holds itself.
const maxXattrsHere = 1024

// minNode is the least number of bytes that a node takes.
const minNode = 11

// flags returns the leading flags of n's encoding.
func (n *Node) flags() uint64 {
	f := uint64(n.Kind) & nodeKind
	if n.Owner != "" || n.Group != "" {
		f |= nodeOwner
	}
	if !n.Look.IsZero() {
		f |= nodeLook
		if n.Look.CTime == n.MTime {
			f |= nodeSame
		}
	}
	switch {
	case !n.XattrChunk.IsZero():
		f |= nodeXchunk
	case len(n.Xattrs) > 0:
		f |= nodeXattrs
	}
	if n.Link != 0 {
		f |= nodeLink
	}
	if n.Flags&Changed != 0 {
		f |= nodeChange
	}
	if n.Kind == File {
		f |= n.Content.form()
	}
	return f
}

func (c *Content) form() uint64 {
	switch {
	case !c.List.IsZero():
		return formList
	case len(c.Extents) > 0:
		return formExtents
	case len(c.Inline) > 0:
		return formInline
	}
	return formEmpty
}

// Append appends the encoding of n to dst and returns the result. What Validate
// refuses is encoded all the same, into bytes that DecodeNode refuses or that
// lack what does not belong there. If XattrChunk is set, Xattrs are left out.
func (n *Node) Append(dst []byte) []byte {
	f := n.flags()
	dst = wire.AppendUvarint(dst, f)
	dst = wire.AppendText(dst, n.Name)
	dst = wire.AppendUvarint(dst, uint64(n.Mode))
	dst = wire.AppendUvarint(dst, uint64(n.UID))
	dst = wire.AppendUvarint(dst, uint64(n.GID))
	if f&nodeOwner != 0 {
		dst = wire.AppendText(dst, n.Owner)
		dst = wire.AppendText(dst, n.Group)
	}
	dst = appendSvarint(dst, n.MTime.Sec)
	dst = wire.AppendUint32(dst, n.MTime.Nsec)
	if f&nodeLink != 0 {
		dst = wire.AppendUvarint(dst, n.Link)
	}
	if f&nodeLook != 0 {
		dst = wire.AppendUvarint(dst, n.Look.Dev)
		dst = wire.AppendUvarint(dst, n.Look.Ino)
		if f&nodeSame == 0 {
			dst = appendSvarint(dst, n.Look.CTime.Sec-n.MTime.Sec) // wraps around, and back when read
			dst = wire.AppendUint32(dst, n.Look.CTime.Nsec)
		}
	}
	switch {
	case f&nodeXchunk != 0:
		dst = append(dst, n.XattrChunk[:]...)
	case f&nodeXattrs != 0:
		dst = appendXattrs(dst, n.Xattrs)
	}
	return n.appendOfKind(dst, f)
}

// appendOfKind appends what only nodes of n's kind have.
func (n *Node) appendOfKind(dst []byte, f uint64) []byte {
	switch n.Kind {
	case File:
		dst = wire.AppendUvarint(dst, n.Size)
		switch f & nodeForm {
		case formInline:
			dst = wire.AppendBytes(dst, n.Content.Inline)
		case formExtents:
			dst = wire.AppendUvarint(dst, uint64(len(n.Content.Extents)))
			for _, e := range n.Content.Extents {
				dst = e.append(dst)
			}
		case formList:
			dst = append(dst, n.Content.List[:]...)
		}
	case Dir:
		dst = append(dst, n.Tree[:]...)
	case Symlink:
		dst = wire.AppendText(dst, n.Target)
	case CharDevice, BlockDevice:
		dst = wire.AppendUvarint(dst, n.Device)
	case FIFO, Socket:
	}
	return dst
}

// DecodeNode decodes p, which holds one node and nothing else. An error wraps
// ErrMalformed. The node's content and attribute values alias p, which must
// not be modified any more; its strings do not. Large attributes are not
// loaded: XattrChunk names them.
func DecodeNode(p []byte) (Node, error) {
	d := newDecoder(p)
	var n Node
	d.node(&n)
	if err := d.r.Done(); err != nil {
		return Node{}, fmt.Errorf("node: %w: %w", ErrMalformed, err)
	}
	return n, nil
}

// A decoder reads nodes from one page. All strings share one copy of the page,
// so that a node costs no allocation of its own.
type decoder struct {
	r       *wire.Reader
	text    string   // the whole page
	extents []Extent // room for the extents of the next nodes
}

func newDecoder(p []byte) decoder {
	return decoder{r: wire.NewReader(p), text: string(p)}
}

// string reads bytes of at most limit.
func (d *decoder) string(limit int) string {
	n := len(d.r.Bytes(limit))
	if n == 0 { // also after an error
		return ""
	}
	end := len(d.text) - d.r.Len()
	return d.text[end-n : end]
}

func (d *decoder) id() (id chunk.ID) {
	copy(id[:], d.r.Fixed(len(id)))
	if id.IsZero() {
		d.r.Fail("no chunk named")
	}
	return id
}

func (d *decoder) nsec() uint32 {
	v := d.r.Uint32()
	if v >= 1e9 {
		d.r.Fail("a second of nanoseconds or more")
	}
	return v
}

// node reads one node into n, which must be the zero Node. An error is kept in
// d.r.
func (d *decoder) node(n *Node) {
	r := d.r
	f := r.Uvarint(nodeAll)
	n.Kind = NodeKind(f & nodeKind) //nolint:gosec // three bits
	n.Name = d.string(MaxName)
	n.Mode = uint32(r.Uvarint(maxMode)) //nolint:gosec // limited
	n.UID = uint32(r.Uvarint(1<<32 - 1))
	n.GID = uint32(r.Uvarint(1<<32 - 1))
	if f&nodeOwner != 0 {
		n.Owner, n.Group = d.string(MaxOwner), d.string(MaxOwner)
	}
	n.MTime = Time{Sec: readSvarint(r), Nsec: d.nsec()}
	if f&nodeLink != 0 {
		n.Link = r.Uvarint(1<<64 - 1)
	}
	if f&nodeLook != 0 {
		n.Look.Dev, n.Look.Ino = r.Uvarint(1<<64-1), r.Uvarint(1<<64-1)
		n.Look.CTime = n.MTime
		if f&nodeSame == 0 {
			n.Look.CTime = Time{Sec: n.MTime.Sec + readSvarint(r), Nsec: d.nsec()}
		}
	}
	if f&nodeXattrs != 0 {
		before := r.Len()
		n.Xattrs = d.xattrs()
		if before-r.Len() > maxXattrsHere {
			r.Fail("attributes too large for a node")
		}
	}
	if f&nodeXchunk != 0 {
		n.XattrChunk = d.id()
	}
	if f&nodeChange != 0 {
		n.Flags = Changed
	}
	d.ofKind(n, f)
	if r.Err() != nil {
		return
	}
	// A flag without its part, or a part without its flag, shows here.
	if err := n.check(); err != nil {
		r.Fail(err.Error())
	} else if n.flags() != f {
		r.Fail("node not in its shortest form")
	}
}

// ofKind reads what only nodes of n's kind have.
func (d *decoder) ofKind(n *Node, f uint64) {
	switch n.Kind {
	case File:
		n.Size = d.r.Uvarint(maxSize)
		switch f & nodeForm {
		case formInline:
			n.Content.Inline = d.r.Bytes(MaxInline)
		case formExtents:
			n.Content.Extents = d.extentsOf()
		case formList:
			n.Content.List, n.Content.Size = d.id(), n.Size
		}
	case Dir:
		n.Tree = d.id()
	case Symlink:
		n.Target = d.string(MaxTarget)
	case CharDevice, BlockDevice:
		n.Device = d.r.Uvarint(1<<64 - 1)
	case FIFO:
	default:
		d.r.Fail(fmt.Sprintf("node of kind %d", n.Kind))
	}
}

// extentsOf reads the extents of one node into a piece of d.extents, which
// serves many nodes with one allocation.
func (d *decoder) extentsOf() []Extent {
	n := d.r.Count(MaxExtents, minExtent)
	if cap(d.extents)-len(d.extents) < n {
		// As many as the rest of the page can hold, if each file has one.
		d.extents = make([]Extent, 0, n+d.r.Len()/bytesPerFile)
	}
	start := len(d.extents)
	for range n {
		d.extents = append(d.extents, readExtent(d.r))
	}
	return d.extents[start:len(d.extents):len(d.extents)]
}

// bytesPerFile is about what a small node with one extent takes; measured on
// the Go source tree, 70 to 90.
const bytesPerFile = 72

func appendSvarint(dst []byte, v int64) []byte {
	return wire.AppendUvarint(dst, uint64(v)<<1^uint64(v>>63)) //nolint:gosec // zigzag is a bijection
}

func readSvarint(r *wire.Reader) int64 {
	u := r.Uvarint(1<<64 - 1)
	return int64(u>>1) ^ -int64(u&1) //nolint:gosec // the inverse of zigzag
}
