#!/usr/bin/env python3
"""Writes hash.json and pol.json: python3 vectors.py, in this directory.

A second implementation of chunk IDs and of the polynomial, from the BLAKE3
paper and from the definition of irreducibility, that shares no code with the
Go one. The files are frozen: they are added to, never updated.
"""
import json
import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERM = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
START, END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64
M32 = 0xFFFFFFFF


def rotr(x, n):
    return (x >> n | x << (32 - n)) & M32


def compress(cv, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(cv) + list(IV[:4]) + [counter & M32, counter >> 32, length, flags]

    def g(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & M32
        v[d] = rotr(v[d] ^ v[a], 16)
        v[c] = (v[c] + v[d]) & M32
        v[b] = rotr(v[b] ^ v[c], 12)
        v[a] = (v[a] + v[b] + y) & M32
        v[d] = rotr(v[d] ^ v[a], 8)
        v[c] = (v[c] + v[d]) & M32
        v[b] = rotr(v[b] ^ v[c], 7)

    for _ in range(7):
        g(0, 4, 8, 12, m[0], m[1])
        g(1, 5, 9, 13, m[2], m[3])
        g(2, 6, 10, 14, m[4], m[5])
        g(3, 7, 11, 15, m[6], m[7])
        g(0, 5, 10, 15, m[8], m[9])
        g(1, 6, 11, 12, m[10], m[11])
        g(2, 7, 8, 13, m[12], m[13])
        g(3, 4, 9, 14, m[14], m[15])
        m = [m[i] for i in PERM]
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ cv[i] for i in range(8)]


def blake3(key, flags, data, size):
    """size bytes of output; key is eight words."""
    def node(data, counter):  # arguments of the last compression of a subtree
        if len(data) <= 1024:
            cv = key
            blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
            for i, b in enumerate(blocks[:-1]):
                cv = compress(cv, b, counter, 64, flags | (START if i == 0 else 0))[:8]
            f = flags | END | (START if len(blocks) == 1 else 0)
            return cv, blocks[-1], counter, len(blocks[-1]), f
        left = 1024
        while left * 2 < len(data):
            left *= 2
        l, r = node(data[:left], counter), node(data[left:], counter + left // 1024)
        return key, struct.pack("<16I", *(compress(*l)[:8] + compress(*r)[:8])), 0, 64, flags | PARENT

    cv, block, _, length, f = node(data, 0)
    out = b""
    i = 0
    while len(out) < size:
        out += struct.pack("<16I", *compress(cv, block, i, length, f | ROOT))
        i += 1
    return out[:size]


def keyed(key, data):
    return blake3(struct.unpack("<8I", key), KEYED, data, 32)


def derive(context, key, size):
    ck = blake3(IV, CONTEXT, context.encode(), 32)
    return blake3(struct.unpack("<8I", ck), MATERIAL, key, size)


def mod(a, p):
    while a.bit_length() >= p.bit_length():
        a ^= p << (a.bit_length() - p.bit_length())
    return a


def mulmod(a, b, p):
    r = 0
    while b:
        if b & 1:
            r ^= a
        a, b = mod(a << 1, p), b >> 1
    return r


def irreducible53(p):
    """53 is prime: p is irreducible iff x^(2^53) = x mod p and gcd(x^2-x, p) = 1."""
    x = 2
    for _ in range(53):
        x = mulmod(x, x, p)
    return x == 2 and p & 1 == 1 and bin(p).count("1") % 2 == 1


def polynomial(key):
    stream = derive("cairn v1 2026 chunk polynomial", key, 1 << 13)
    for i in range(0, len(stream), 8):
        p = int.from_bytes(stream[i:i + 8], "little") & (1 << 54) - 1 | 1 << 53 | 1
        if irreducible53(p):
            return p
    raise ValueError("no polynomial in 8 KiB")


def main():
    keys = [b"whats the Elvish word for friend", bytes(32), bytes(range(32)), b"\xff" * 32]
    # The first key with the inputs i mod 251 is the set of the BLAKE3 team.
    hashes = [{"key": k.hex(), "length": n, "id": keyed(k, bytes(i % 251 for i in range(n))).hex()}
              for k in keys for n in (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 8193, 24576, 102400)]
    pols = [{"key": k.hex(), "pol": "%x" % polynomial(k)} for k in keys]
    for name, rows in (("hash.json", hashes), ("pol.json", pols)):
        with open(name, "w", encoding="ascii") as f:
            f.write("[\n  " + ",\n  ".join(json.dumps(r) for r in rows) + "\n]\n")


main()
