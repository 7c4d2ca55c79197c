"""Which types of Arrow hold pictures."""

import pyarrow as pa


def is_image(kind: pa.DataType) -> bool:
    """Whether a column of that type holds pictures: binary, or a struct with binary ``bytes``."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of that type holds lists of pictures."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool((listed or pa.types.is_fixed_size_list(kind)) and is_image(kind.value_type))


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether there are pictures anywhere in a column of that type."""
    return is_image(kind) or any(holds_pictures(kind.field(n).type) for n in range(kind.num_fields))
