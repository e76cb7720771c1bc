"""Computes random permutations of 0 … n − 1 element by element, without a table.

A Feistel network over pairs (left, right) with modular addition: each half in turn is shifted by a hash of the other, which is
invertible. Cycle walking repeats it for results ≥ n (Black and Rogaway, *Ciphers with Arbitrary Finite Domains*, 2002). The
halves are chosen so that few results are ≥ n.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Integer, UInt32

ROUNDS = 6
_FIXED = (0x243F6A88, 0x85A308D3)
"""Key of the shuffle of a bank: the first digits of π. Checkpoints depend on it."""


def row_of(center: Integer[Array, "*n"], n_centers: int) -> Int32[Array, "*n"]:
    """Maps centers (0 … n_centers − 1) to rows of a bank.

    The shuffle is the same for all runs; it separates centers with neighbouring indices, which are often similar or equally
    frequent, so that they do not share a stratum or a device.
    """
    return permute(center, n_centers, jnp.array(_FIXED, jnp.uint32), n_centers)


def center_of(row: Integer[Array, "*n"], n_centers: int) -> Int32[Array, "*n"]:
    """Maps rows (0 … n_centers − 1) to centers: the inverse of `row_of`."""
    key, halves = jnp.array(_FIXED, jnp.uint32), _halves(n_centers)

    def back(x: Array) -> Array:
        left, right = x // halves[1], x % halves[1]
        for turn in reversed(range(ROUNDS)):
            right = (right + (halves[1] - _hash(left, key, 2 * turn + 1) % halves[1])) % halves[1]
            left = (left + (halves[0] - _hash(right, key, 2 * turn) % halves[0])) % halves[0]
        return left * halves[1] + right

    return _walk(back, row, n_centers)


def permute(
    number: Integer[Array, "*n"], most: int, key: UInt32[Array, "*#n 2"], size: int | Integer[Array, "*#n"]
) -> Int32[Array, "*n"]:
    """Applies the permutation of 0 … size − 1 given by `key`.

    `most`: the largest `size`, at most 2³¹ − 1.
    """
    halves = _halves(most)

    def forth(x: Array) -> Array:
        left, right = x // halves[1], x % halves[1]
        for turn in range(ROUNDS):
            left = (left + _hash(right, key, 2 * turn) % halves[0]) % halves[0]
            right = (right + _hash(left, key, 2 * turn + 1) % halves[1]) % halves[1]
        return left * halves[1] + right

    return _walk(forth, number, size)


def random_words(number: Integer[Array, "n"], key: UInt32[Array, "2"]) -> UInt32[Array, "n 2"]:
    """Returns 64 pseudorandom bits for each number and the key, as two words."""
    number = number.astype(jnp.uint32)
    return jnp.stack([_hash(number, key, 2 * ROUNDS + which) for which in range(2)], axis=-1)


def _halves(most: int) -> tuple[int, int]:
    left = math.isqrt(max(most - 1, 0)) + 1
    return left, -(-most // left)


def _walk(step: Callable[[Array], Array], number: Array, size: int | Array) -> Array:
    limit = jnp.asarray(size).astype(jnp.uint32)

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        moving, x = state
        x = jnp.where(moving, step(x), x)
        return x >= limit, x

    start = jnp.ones(number.shape, bool), number.astype(jnp.uint32)
    return jax.lax.while_loop(lambda state: state[0].any(), again, start)[1].astype(jnp.int32)


def _hash(x: Array, key: Array, number: int) -> Array:
    """Hashes a number with a key to 32 bits (constants: C. Wellons, *Hash prospector*, lowbias32)."""
    x = x ^ key[..., 0] ^ jnp.uint32(number * 0x9E3779B9 & 0xFFFFFFFF)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B) + key[..., 1]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    return x ^ (x >> 15)
