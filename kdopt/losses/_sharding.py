"""Operations that must be told where their result lies on a mesh.

On a mesh with explicit axes, as ``jax.make_mesh`` makes, the sharding of an array is
part of its type, and a product, gather or scatter of sharded arrays is an error unless
it says how its result is sharded. On any other mesh, and without one, these functions
are the plain operations.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

Spec = list[tuple[str, ...]]
"""The mesh axes over which each array axis is sharded."""


def einsum(
    subscripts: str, *operands: jax.Array, dtype: jnp.dtype | None = None
) -> jax.Array:
    """Sums products at full precision, sharded as the operands are.

    The default precision would round float32 to TF32 on a GPU and to bfloat16 on a TPU.

    Args:
        subscripts: As in ``jnp.einsum``, with an arrow and without an ellipsis.
        operands: One or two arrays. If both shard different axes of the result over one
            mesh axis, the second is gathered.
        dtype: Dtype of the sums; by default that of the operands.

    Returns:
        The result, in which every axis keeps its sharding from the operands.
    """
    names, result = subscripts.split("->")
    places: dict[str, tuple[str, ...]] = {}
    for letters, operand in zip(names.split(","), operands, strict=True):
        for letter, axes in zip(letters, _spec(operand), strict=True):
            if letter not in places and not set(axes) & set(sum(places.values(), ())):
                places[letter] = axes
    if not any(places.values()):
        return jnp.einsum(
            subscripts, *operands, precision="highest", preferred_element_type=dtype
        )
    mesh = _mesh(*operands)
    placed = [
        _place(operand, [places.get(letter, ()) for letter in letters], mesh)
        for letters, operand in zip(names.split(","), operands, strict=True)
    ]
    out = NamedSharding(mesh, _partition([places.get(letter, ()) for letter in result]))
    return jnp.einsum(
        subscripts,
        *placed,
        precision="highest",
        preferred_element_type=dtype,
        out_sharding=out,
    )


def gathered(x: jax.Array, *, axis: int | None = 0) -> jax.Array:
    """Gathers a sharded array along an axis, or along all if it is None."""
    whole = range(x.ndim) if axis is None else (axis % x.ndim,)
    spec = [() if i in whole else axes for i, axes in enumerate(_spec(x))]
    return _place(x, spec, _mesh(x))


def take_rows(table: Float[Array, "n ..."], indices: Int[Array, " b"]) -> jax.Array:
    """Picks rows of a table, sharded as the indices are.

    Args:
        table: The table, ``[n, ...]``.
        indices: Indices into it, ``[b]``, within its bounds.

    Returns:
        The rows, ``[b, ...]``.
    """
    [rows], columns = _spec(indices), _spec(table)[1:]
    if not any((rows, *_spec(table))):
        return table[indices]
    columns = [() if set(axes) & set(rows) else axes for axes in columns]
    mesh = _mesh(indices, table)
    out = NamedSharding(mesh, _partition([rows, *columns]))
    table = _place(table, [(), *columns], mesh)
    return table.at[indices].get(mode="clip", out_sharding=out)


def take_entries(
    x: Float[Array, "*b c"], indices: Int[Array, "*b k"]
) -> Float[Array, "*b k"]:
    """Picks entries of each row, sharded as the rows are.

    Args:
        x: Rows, ``[..., c]``, gathered along the last axis.
        indices: Indices into them, ``[..., k]``, within their bounds.

    Returns:
        The entries, ``[..., k]``.
    """

    def of_row(row: jax.Array, places: jax.Array) -> jax.Array:
        return row[places]

    for _ in range(x.ndim - 1):
        of_row = jax.vmap(of_row)
    x = gathered(x, axis=-1)
    return of_row(x, _place(indices, _spec(x), _mesh(x, indices)))


def add_rows(
    rows: Float[Array, "b ..."], indices: Int[Array, " b"], num: int
) -> jax.Array:
    """Adds up the rows that share an index.

    Args:
        rows: What to add, ``[b, ...]``.
        indices: Where each row goes, ``[b]``, in ``[0, num)``.
        num: Number of sums.

    Returns:
        The sums, ``[num, ...]``, complete on each device.
    """
    table = jnp.zeros((num, *rows.shape[1:]), rows.dtype)
    if not any((*_spec(rows), *_spec(indices))):
        return table.at[indices].add(rows)
    mesh = _mesh(rows, indices)
    out = NamedSharding(mesh, _partition([(), *_spec(rows)[1:]]))
    return table.at[indices].add(rows, out_sharding=out)


def _spec(x: jax.Array) -> Spec:
    """Returns the explicit mesh axes over which each array axis is sharded."""
    spec = jax.typeof(x).sharding.spec
    entries = [*spec, *([None] * (x.ndim - len(spec)))]
    return [
        entry
        if isinstance(entry, tuple)
        else (entry,)
        if isinstance(entry, str)
        else ()
        for entry in entries
    ]


def _partition(spec: Spec) -> PartitionSpec:
    return PartitionSpec(*(axes or None for axes in spec))


def _mesh(*arrays: jax.Array):
    """Returns the mesh of the first sharded array, or else of the first array."""
    first = next((x for x in arrays if any(_spec(x))), arrays[0])
    return jax.typeof(first).sharding.mesh


def _place(x: jax.Array, spec: Spec, mesh) -> jax.Array:
    if spec == _spec(x):
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, _partition(spec)))
