package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cairn-backup/cairn/chunk/seal"
	"github.com/cairn-backup/cairn/chunk/wire"
	"github.com/cairn-backup/cairn/manifest"
)

// A Record is one record of the log, opened and with its signature verified.
type Record struct {
	N       uint64
	Prev    Hash // of record N-1
	Nonce   [16]byte
	Writer  string // host and program, for people
	Time    time.Time
	Effects []Effect
	Signer  [32]byte // public key
	Hash    Hash     // of the stored object
}

// What may lie in one object: see [seal.MaxPart] for the bytes of a part.
const (
	maxRecord     = 17 << 20 // bytes of a record as stored
	maxCheckpoint = 1 << 30  // bytes of a checkpoint as stored
	checkpointCut = 8 << 20  // bytes of a checkpoint's parts
	maxEffects    = 1 << 16
)

// recordBody is what is signed:
//
//	{1: n, 2: hash of record n-1, 3: nonce, 4: writer, 5: [seconds, nanoseconds], 6: [[type, {…}], …]}
type recordBody struct {
	N       uint64   `cbor:"1,keyasint"`
	Prev    Hash     `cbor:"2,keyasint"`
	Nonce   [16]byte `cbor:"3,keyasint"`
	Writer  string   `cbor:"4,keyasint"`
	Time    stamp    `cbor:"5,keyasint"`
	Effects []typed  `cbor:"6,keyasint"`
}

type typed struct {
	_       struct{} `cbor:",toarray"`
	Type    effectType
	Payload wire.Raw
}

// stamp is a time as [Unix seconds, nanoseconds].
type stamp struct {
	_    struct{} `cbor:",toarray"`
	Sec  int64
	Nsec uint32
}

func stampOf(t time.Time) stamp {
	return stamp{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} //nolint:gosec // below 1e9
}

func (s stamp) utc() time.Time { return time.Unix(s.Sec, int64(s.Nsec)).UTC() }

// snapshotPayload is a Snapshot as stored.
type snapshotPayload struct {
	Summary []byte   `cbor:"1,keyasint"` // CBOR, as package manifest defines it
	Needs   Ranges   `cbor:"2,keyasint"`
	Session [16]byte `cbor:"3,keyasint"`
	Body    []byte   `cbor:"4,keyasint"`
}

// sessionPayload is a Session as stored.
type sessionPayload struct {
	Session
	Started stamp `cbor:"5,keyasint"`
}

// marshalRecord encodes what rec's signature covers.
func marshalRecord(rec Record) ([]byte, error) {
	body := recordBody{N: rec.N, Prev: rec.Prev, Nonce: rec.Nonce, Writer: rec.Writer, Time: stampOf(rec.Time)}
	for _, e := range rec.Effects {
		payload, err := marshalEffect(e)
		if err != nil {
			return nil, err
		}
		body.Effects = append(body.Effects, typed{Type: e.effect(), Payload: payload})
	}
	return wire.Marshal(body)
}

func marshalEffect(e Effect) (wire.Raw, error) {
	switch e := e.(type) {
	case Snapshot:
		summary, err := manifest.EncodeSummary(e.Summary)
		if err != nil {
			return nil, err
		}
		return wire.Marshal(snapshotPayload{Summary: summary, Needs: e.Needs, Session: e.Session, Body: e.Body})
	case Session:
		return wire.Marshal(sessionPayload{Session: e, Started: stampOf(e.Started)})
	}
	return wire.Marshal(e)
}

// unmarshalRecord decodes what marshalRecord wrote. Signer and Hash are left
// zero. A type of effect that is not known is seal.ErrNewerFormat.
func unmarshalRecord(p []byte) (Record, error) {
	var body recordBody
	if err := wire.Unmarshal(p, &body); err != nil {
		return Record{}, err
	}
	if len(body.Effects) > maxEffects || body.Time.Nsec >= 1e9 {
		return Record{}, fmt.Errorf("%w: %d effects at %d nanoseconds", wire.ErrMalformed, len(body.Effects), body.Time.Nsec)
	}
	rec := Record{N: body.N, Prev: body.Prev, Nonce: body.Nonce, Writer: body.Writer, Time: body.Time.utc()}
	for i, t := range body.Effects {
		e, err := unmarshalEffect(t)
		if err != nil {
			return Record{}, fmt.Errorf("effect %d, %v: %w", i, t.Type, err)
		}
		rec.Effects = append(rec.Effects, e)
	}
	return rec, nil
}

func unmarshalEffect(t typed) (Effect, error) {
	switch t.Type {
	case typeAdd:
		e, err := payload[Add](t)
		if len(e.Packs) > MaxPacks {
			return nil, fmt.Errorf("%w: %d packs", wire.ErrMalformed, len(e.Packs))
		}
		for i := range e.Packs {
			e.Packs[i].ID = e.Packs[i].Header().Name()
		}
		return e, err
	case typeSnapshot:
		p, err := payload[snapshotPayload](t)
		if err != nil {
			return nil, err
		}
		summary, err := manifest.DecodeSummary(p.Summary)
		return Snapshot{Summary: summary, Needs: p.Needs, Session: p.Session, Body: p.Body}, err
	case typeSession:
		p, err := payload[sessionPayload](t)
		if p.Started.Nsec >= 1e9 {
			return nil, fmt.Errorf("%w: %d nanoseconds", wire.ErrMalformed, p.Started.Nsec)
		}
		p.Session.Started = p.Started.utc()
		return p.Session, err
	case typeDoom:
		return payload[Doom](t)
	case typeForget:
		return payload[Forget](t)
	case typeAnnotate:
		return payload[Annotate](t)
	case typeEnd:
		return payload[End](t)
	case typeKey:
		return payload[Key](t)
	case typeFeature:
		return payload[Feature](t)
	case typeDamage:
		return payload[Damage](t)
	case typeUndelete:
		return payload[Undelete](t)
	case typeRepaired:
		return payload[Repaired](t)
	}
	return nil, errNewerEffect
}

// errNewerEffect is apart from what a clear header says: it comes from a
// record whose signature holds, so it is no damage.
var errNewerEffect = fmt.Errorf("an effect that this program does not know: %w", seal.ErrNewerFormat)

func payload[E any](t typed) (E, error) {
	var e E
	err := wire.Unmarshal(t.Payload, &e)
	return e, err
}

// A signed text is, over all parts of its object,
//
//	32  public key of the signer
//	64  Ed25519 signature of: context | repository id (16) | n (8, little-endian) | body
//	…   body
const (
	signedHead        = 32 + 64
	recordContext     = "cairn v1 record"
	checkpointContext = "cairn v1 checkpoint"
)

func signedMessage(context string, repository [16]byte, n uint64, body []byte) []byte {
	m := make([]byte, 0, len(context)+len(repository)+8+len(body))
	m = append(append(m, context...), repository[:]...)
	return append(binary.LittleEndian.AppendUint64(m, n), body...)
}

func sign(s *Signer, context string, b seal.Binding, body []byte) []byte {
	public := s.Public()
	signature := s.sign(signedMessage(context, b.Repository, b.Number, body))
	out := make([]byte, 0, signedHead+len(body))
	return append(append(append(out, public[:]...), signature[:]...), body...)
}

var errSignature = errors.New("the signature is wrong")

// openSigned verifies a signed text and returns its signer and body, which
// aliases text.
func openSigned(text []byte, context string, b seal.Binding) (signer [32]byte, body []byte, err error) {
	if len(text) < signedHead {
		return signer, nil, fmt.Errorf("%w: %d bytes", wire.ErrMalformed, len(text))
	}
	signer, body = [32]byte(text[:32]), text[signedHead:]
	if !verify(signer, [64]byte(text[32:signedHead]), signedMessage(context, b.Repository, b.Number, body)) {
		return signer, nil, errSignature
	}
	return signer, body, nil
}

// sealRecord returns rec as an object. A new seal.Writer draws a new salt, so
// no two records, not even two attempts at one, share a key.
func sealRecord(meta seal.Key, repository [16]byte, s *Signer, rec Record) ([]byte, error) {
	body, err := marshalRecord(rec)
	if err != nil {
		return nil, err
	}
	if len(body) > seal.MaxPart-signedHead {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(body))
	}
	b := seal.Binding{Repository: repository, Number: rec.N}
	_, object, err := seal.Object(meta, seal.Template{Kind: seal.KindRecord}, b, sign(s, recordContext, b, body))
	return object, err
}

// openRecord opens the object at log/<n>. Whether its signer may sign is for
// the State to say.
func openRecord(meta seal.Key, repository [16]byte, n uint64, object []byte) (Record, error) {
	b := seal.Binding{Repository: repository, Number: n}
	_, parts, err := seal.OpenObject(meta, seal.KindRecord, b, object)
	if err != nil {
		return Record{}, err
	}
	if len(parts) != 1 {
		return Record{}, fmt.Errorf("%w: %d parts", seal.ErrDamaged, len(parts))
	}
	signer, body, err := openSigned(parts[0], recordContext, b)
	if err != nil {
		return Record{}, err
	}
	rec, err := unmarshalRecord(body)
	if err != nil {
		return Record{}, err
	}
	if rec.N != n {
		return Record{}, fmt.Errorf("%w: it says it is record %d", wire.ErrMalformed, rec.N)
	}
	rec.Signer, rec.Hash = signer, HashOf(object)
	return rec, nil
}
