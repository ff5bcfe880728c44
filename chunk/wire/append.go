package wire

import (
	"encoding/binary"
	"time"
)

// AppendUvarint appends v as LEB128, in as few bytes as it needs.
func AppendUvarint(dst []byte, v uint64) []byte {
	return binary.AppendUvarint(dst, v)
}

// AppendUint32 appends v as 4 bytes, little-endian.
func AppendUint32(dst []byte, v uint32) []byte {
	return binary.LittleEndian.AppendUint32(dst, v)
}

// AppendUint64 appends v as 8 bytes, little-endian.
func AppendUint64(dst []byte, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, v)
}

// AppendBytes appends the length of p as a uvarint, then p.
func AppendBytes(dst, p []byte) []byte {
	return append(AppendUvarint(dst, uint64(len(p))), p...)
}

// AppendText appends the length of s in bytes as a uvarint, then s. The bytes
// need not be UTF-8.
func AppendText(dst []byte, s string) []byte {
	return append(AppendUvarint(dst, uint64(len(s))), s...)
}

// AppendTime appends t as 12 bytes: Unix seconds (int64) and nanoseconds
// (uint32). The location is not kept.
func AppendTime(dst []byte, t time.Time) []byte {
	dst = AppendUint64(dst, uint64(t.Unix())) // two's complement
	return AppendUint32(dst, uint32(t.Nanosecond()))
}
