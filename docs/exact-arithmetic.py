"""The vectors of docs/exact-arithmetic.md for encoders, from its text alone.

In: nothing. Out: the lines from "LayerNorm" on, as the document has them.
Every rule is done with Python's integers and fractions and rounded as the text says, so it shares neither code nor
floating-point hardware with `inference`; whoever implements the rules elsewhere can read and change it.
Run it: python3 docs/exact-arithmetic.py
"""

from fractions import Fraction
from math import isqrt

ZERO = Fraction(0)


def rounded(value):
    """To an integer, ties to even."""
    return round(value)


def log2_floor(value):
    """The exponent of the largest power of two up to a positive fraction."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    power = Fraction(2) ** guess
    return guess if power <= value else guess - 1


def to_f(value):
    """One rounding to binary32, flushed: rule 1."""
    if value == 0:
        return ZERO
    unit = Fraction(2) ** (max(log2_floor(abs(value)), -126) - 23)
    result = rounded(value / unit) * unit
    assert abs(result) < Fraction(2) ** 128, "infinite"
    return ZERO if abs(result) <= Fraction(2) ** -126 else result


def add(a, b):
    return to_f(a + b)


def sub(a, b):
    return to_f(a - b)


def mul(a, b):
    return to_f(a * b)


def div(a, b):
    return to_f(a / b)


def sqrt(a):
    """Rounded from 128 bits of the root; a tie cannot be, since a float's root is never halfway between two."""
    if a == 0:
        return ZERO
    shift = 128 - log2_floor(a) // 2
    root = isqrt(int(a * Fraction(4) ** shift))
    return to_f((Fraction(root) + (ZERO if root * root == a * Fraction(4) ** shift else Fraction(1, 2))) / Fraction(2) ** shift)


def scale2(a, power):
    """Only the exponent changes, so nothing is rounded but the flush."""
    return to_f(a * Fraction(2) ** power)


def rnd(x, e):
    return rounded(x / Fraction(2) ** e)


def bits(value):
    """A float's bits as eight hexadecimal digits."""
    if value == 0:
        return "00000000"
    exponent = log2_floor(abs(value))
    mantissa = abs(value) / Fraction(2) ** (exponent - 23)
    assert mantissa.denominator == 1
    sign = 1 if value < 0 else 0
    return f"{sign << 31 | (exponent + 127) << 23 | (int(mantissa) - (1 << 23)):08x}"


def float_of(digits):
    """The float of eight hexadecimal digits; normal or zero."""
    word = int(digits, 16)
    if word & 0x7FFFFFFF == 0:
        return ZERO
    mantissa = Fraction((word & 0x7FFFFF) + (1 << 23), 1 << 23)
    return (-1) ** (word >> 31) * mantissa * Fraction(2) ** ((word >> 23 & 0xFF) - 127)


def q16(x):
    """Rule 2."""
    a = max(abs(it) for it in x)
    if a == 0:
        return [0] * len(x), 0
    e = log2_floor(a) - 14
    if rnd(a, e) > 32639:
        e += 1
    return [rnd(it, e) for it in x], e


def product(matrix, x):
    """Rules 3 and 4 for rows of F32."""
    q, e = q16(x)
    out = []
    for row in matrix:
        w, big = q16(row)
        out.append(scale2(to_f(Fraction(sum(a * b for a, b in zip(w, q)))), big + e))
    return out


def exp(x):
    """Rule 8."""
    x = min(max(x, Fraction(-87)), Fraction(87))
    n = Fraction(rnd(mul(x, float_of("3fb8aa3b")), 0))
    r = sub(sub(x, mul(n, float_of("3f318000"))), mul(n, float_of("b95e8083")))
    p = float_of("39506967")
    for c in ["3ab743ce", "3c088908", "3d2aa9c1", "3e2aaaaa", "3f000000"]:
        p = add(mul(p, r), float_of(c))
    return scale2(add(add(mul(p, mul(r, r)), r), Fraction(1)), int(n))


def attention(queries, keys, values, d):
    """Rule 7 for one head; every position of the text is seen."""
    root = next((m for m in range(1, 6) if 4**m == d), None)
    assert root is not None, "the vectors have heads of 16"
    keys, values = [q16(k) for k in keys], [q16(v) for v in values]
    out = []
    for query in queries:
        q, eq = q16(query)
        s = [scale2(to_f(Fraction(sum(a * b for a, b in zip(q, k)))), eq + ek - root) for k, ek in keys]
        largest = max(s)
        x = [exp(sub(it, largest)) for it in s]
        total = to_f(Fraction(sum(rnd(it, -21) for it in x)))
        me = max(ev for _, ev in values)
        c = [rnd(scale2(it, ev - me), -21) for it, (_, ev) in zip(x, values)]
        sums = [sum(c[p] * values[p][0][j] for p in range(len(c))) for j in range(d)]
        out.append([scale2(div(to_f(Fraction(it)), total), me) for it in sums])
    return out


def layer_norm(x, weight, bias, eps):
    """Rule 11."""
    n = Fraction(len(x))
    q, e = q16(x)
    s = sum(q)
    v = len(x) * sum(it * it for it in q) - s * s
    mean = div(scale2(to_f(Fraction(s)), e), n)
    var = div(div(scale2(to_f(Fraction(v)), 2 * e), n), n)
    r = div(Fraction(1), sqrt(add(var, eps)))
    return [add(mul(mul(sub(a, mean), r), w), b) for a, w, b in zip(x, weight, bias)]


def gelu(x):
    """Rule 12."""
    z = mul(abs(x), float_of("3f3504f3"))
    t = div(Fraction(1), add(Fraction(1), mul(float_of("3ea7ba05"), z)))
    p = float_of("3f87dc22")
    for c in ["bfba00e3", "3fb5f0e3", "be91a98e", "3e827906"]:
        p = add(mul(p, t), float_of(c))
    h = mul(mul(mul(p, t), exp(sub(ZERO, mul(z, z)))), float_of("3f000000"))
    return mul(x, sub(Fraction(1), h)) if x > 0 else mul(x, h)


class Numbers:
    """The document's random numbers."""

    def __init__(self, seed):
        self.s = seed

    def float(self):
        self.s = (1664525 * self.s + 1013904223) % 2**32
        return Fraction(self.s >> 8, 2**23) - 1

    def row(self, n):
        return [self.float() for _ in range(n)]

    def matrix(self, rows, columns):
        return [self.row(columns) for _ in range(rows)]


class Encoder:
    """The document's encoder: 12 words, 8 positions, 2 types, length 32, 2 heads, 2 layers, 64 within."""

    def __init__(self):
        numbers = Numbers(5)
        self.words, self.positions, self.types = (numbers.matrix(rows, 32) for rows in (12, 8, 2))
        self.norm = numbers.row(32), numbers.row(32)
        self.layers = []
        for _ in range(2):
            shapes = [(32, 32), (32, 32), (32, 32), (32, 32), (64, 32), (32, 64)]
            linear = [(numbers.matrix(rows, columns), numbers.row(rows)) for rows, columns in shapes]
            norms = [(numbers.row(32), numbers.row(32)) for _ in range(2)]
            self.layers.append((linear, norms))
        self.eps = to_f(Fraction(1, 10**12))

    def states(self, tokens):
        """Rule 13."""
        x = []
        for position, token in enumerate(tokens):
            rows = zip(self.words[token], self.types[0], self.positions[position])
            state = [add(add(to_f(word), to_f(kind)), to_f(place)) for word, kind, place in rows]
            x.append(layer_norm(state, *self.norm, self.eps))
        for linear, (attention_norm, output_norm) in self.layers:
            query, key, value, output, up, down = linear
            heads = []
            for matrix, bias in (query, key, value):
                rows = [[add(y, b) for y, b in zip(product(matrix, state), bias)] for state in x]
                heads.append([[row[at : at + 16] for row in rows] for at in (0, 16)])
            attended = [attention(heads[0][h], heads[1][h], heads[2][h], 16) for h in range(2)]
            for token, state in enumerate(x):
                both = attended[0][token] + attended[1][token]
                branch = [add(y, b) for y, b in zip(product(output[0], both), output[1])]
                state = layer_norm([add(a, b) for a, b in zip(state, branch)], *attention_norm, self.eps)
                wide = [gelu(add(y, b)) for y, b in zip(product(up[0], state), up[1])]
                branch = [add(y, b) for y, b in zip(product(down[0], wide), down[1])]
                x[token] = layer_norm([add(a, b) for a, b in zip(state, branch)], *output_norm, self.eps)
        return x

    def vector(self, tokens):
        """Rule 14, the mean."""
        states = self.states(tokens)
        sums = [ZERO] * 32
        for state in states:
            sums = [add(a, b) for a, b in zip(sums, state)]
        means = [div(it, Fraction(len(states))) for it in sums]
        squares = ZERO
        for it in means:
            squares = add(squares, mul(it, it))
        length = sqrt(squares)
        return [div(it, length) for it in means]


def main():
    print("LayerNorm: seed, n, scale bits -> bits")
    for seed, n, scale in [(3, 32, 1), (4, 64, 1), (6, 32, 2**40), (7, 32, Fraction(1, 2**40)), (8, 32, 0)]:
        numbers = Numbers(seed)
        x, weight, bias = ([it * scale for it in numbers.row(n)], numbers.row(n), numbers.row(n))
        y = layer_norm(x, weight, bias, to_f(Fraction(1, 10**12)))
        print(f"{seed} {n} {bits(Fraction(scale))} -> {' '.join(map(bits, y))}")
    print("GELU: x bits -> bits")
    for x in ["00000000", "3f800000", "bf800000", "3f000000", "ba83126f", "40200000", "c0a40000", "41200000", "c1200000", "447a0000"]:
        print(f"{x} -> {bits(gelu(float_of(x)))}")
    print("encoder: tokens -> vector bits")
    encoder = Encoder()
    for tokens in [[2, 3], [2, 4, 3], [2, 11, 8, 5, 10, 9, 3], [2, 5, 5, 5, 5, 5, 5, 3]]:
        print(f"{tokens} -> {' '.join(map(bits, encoder.vector(tokens)))}")


if __name__ == "__main__":
    main()
