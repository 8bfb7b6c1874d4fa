"""A model's tensors as a file holds them, and the model that such a file gives back.

Each tensor has a scheme that says how it is stored, or none: then it stays as it is. A tensor "w"
becomes `w:part` for each part of its scheme's form, plain tensors that `measure.size` and
safetensors can write. Loading needs no schemes: the parts' names tell the form, the model knows its
shapes, and what nobody here wrote is refused. `forms` lists them all.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.formats.forms import FORMS, AnyScheme
from course_lib.formats.parts import check_parts
from course_lib.models.finite import check_finite
from course_lib.models.parts import first_names


def every_linear(model: nn.Module, scheme: AnyScheme) -> dict[str, AnyScheme]:
    """The weight of each nn.Linear -> the scheme. The embedding is left out: add it if it is meant.

    >>> model = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "up": nn.Linear(4, 8)})
    >>> every_linear(model, torch.float16) | {"embedding.weight": torch.bfloat16}
    {'up.weight': torch.float16, 'embedding.weight': torch.bfloat16}
    """
    own = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
    parameters = model.named_parameters(remove_duplicate=False)
    return {name: scheme for name, parameter in parameters if id(parameter) in own}


def pack_tensors(
    tensors: Mapping[str, Tensor], schemes: Mapping[str, AnyScheme]
) -> dict[str, Tensor]:
    """The tensors as a file holds them; see the module's text for their names.

    Args:
        tensors: by name; a name may not hold a colon. One that has several names (tied weights) is
            encoded once.
        schemes: a tensor's name -> how to store it. Others stay.

    Raises:
        TypeError: a scheme of a kind that no form here knows.
        ValueError: a name that there is not; a number beyond the float type; different schemes for
            two names of one tensor; what the scheme's encoder refuses.

    >>> from course_lib.formats.sparse import Sparse
    >>> packed = pack_tensors({"w": torch.eye(99)}, {"w": Sparse()})
    >>> {name: tuple(part.shape) for name, part in packed.items()}
    {'w:values': (99,), 'w:gaps': (99,)}
    """
    if unknown := schemes.keys() - tensors.keys():
        raise ValueError(f"schemes must name tensors that there are; got {sorted(unknown)}")
    packed, encoded = {}, {}
    for name, first in first_names(tensors).items():
        if ":" in name:
            raise ValueError(f"a tensor's name may not hold a colon; got {name!r}")
        if schemes.get(first) != schemes.get(name):
            raise ValueError(f"schemes must be the same for tied tensors; {first} is {name}")
        if first == name:
            encoded[name] = _encode(name, tensors[name], schemes.get(name))
        parts = encoded[first]
        packed |= {f"{name}:{part}" if part else name: stored for part, stored in parts.items()}
    return packed


def _encode(name: str, tensor: Tensor, scheme: AnyScheme | None) -> dict[str, Tensor]:
    """Part -> what is stored; the part of a tensor that is stored as it is has no name."""
    if scheme is None:
        return {"": tensor}
    if isinstance(scheme, torch.dtype):
        stored = tensor.to(scheme)
        check_finite(stored, f"{name}, in {scheme},")
        return {"": stored}
    for form in FORMS:
        if isinstance(scheme, form.scheme):
            return form.encode(tensor, scheme)
    known = ", ".join(form.scheme.__name__ for form in FORMS)
    raise TypeError(f"the scheme of {name} must be {known} or a torch.dtype; got {scheme!r}")


def unpack_tensors(packed: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `packed` holds, decoded, in the order of `like`.

    Args:
        packed: from `pack_tensors`, or from a file that holds it.
        like: tensors of the same names and shapes; their numbers do not matter.

    Raises:
        ValueError: packed lacks a tensor, has one more, has one of another shape, or holds parts
            that no form here knows.

    >>> from course_lib.formats.sparse import Sparse
    >>> tensors = {"w": torch.eye(99)}
    >>> unpack_tensors(pack_tensors(tensors, {"w": Sparse()}), tensors)["w"].equal(tensors["w"])
    True
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, stored in packed.items():
        name, _, part = key.partition(":")
        found.setdefault(name, {})[part] = stored
    if missing := like.keys() - found.keys():
        raise ValueError(f"packed must hold {', '.join(sorted(missing))}; it does not")
    if more := found.keys() - like.keys():
        raise ValueError(
            f"packed must hold nothing but the model; it has {', '.join(sorted(more))}"
        )
    return {name: _decode(name, found[name], tensor.shape) for name, tensor in like.items()}


def _decode(name: str, parts: dict[str, Tensor], shape: torch.Size) -> Tensor:
    if parts.keys() == {""}:
        stored = parts[""]
    else:
        forms = [form for form in FORMS if parts.keys() in form.parts]
        if not forms:
            raise ValueError(f"no form here has the parts {sorted(parts)}, which {name} has")
        check_parts(name, parts)
        stored = forms[0].decode(parts, shape)
    if stored.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}; got {tuple(stored.shape)}")
    return stored


def pack_model(model: nn.Module, schemes: Mapping[str, AnyScheme]) -> dict[str, Tensor]:
    """`pack_tensors` of a model's tensors; the model is left as it is.

    >>> from course_lib.formats.linear import Format, Scheme
    >>> model = nn.Linear(32, 4)
    >>> packed = pack_model(model, every_linear(model, Scheme(Format(4), granularity=8)))
    >>> {name: tensor.nbytes for name, tensor in packed.items()}
    {'weight:codes': 64, 'weight:scale': 32, 'weight:zero_point': 8, 'bias': 16}
    """
    return pack_tensors(model.state_dict(), schemes)


def stored_bytes(tensors: Mapping[str, Tensor], schemes: Sequence[AnyScheme | None]) -> Tensor:
    """What each of L tensors takes in a file under each of K schemes, in bytes: (L, K) int64.

    The file's header, and the tensors that are not named, come on top. A header names the same
    parts under each scheme of a form, only with other numbers: it is longest where they are
    largest. So what a file has beside the L tensors is at most what it has with the widest scheme.

    Raises: as for `pack_tensors`.

    >>> from course_lib.formats.linear import Format, Scheme
    >>> schemes = [Scheme(Format(bits), "channel") for bits in (2, 4, 8)]
    >>> stored_bytes({"w": torch.eye(16)}, schemes)  # codes, and for each row 16 + n bits
    tensor([[100, 168, 304]])
    """
    return torch.tensor(
        [
            [sum(p.nbytes for p in _encode(name, tensor, scheme).values()) for scheme in schemes]
            for name, tensor in tensors.items()
        ]
    )


def unpack_model(packed: Mapping[str, Tensor], model: nn.Module) -> nn.Module:
    """A new model, shaped as `model`, with the weights that `packed` holds, decoded.

    Raises:
        ValueError: as `unpack_tensors`.
    """
    model = copy.deepcopy(model)
    tensors = model.state_dict()  # the very tensors of the model
    for name, stored in unpack_tensors(packed, tensors).items():
        tensors[name].copy_(stored)
    return model


def quantize_model(model: nn.Module, schemes: Mapping[str, AnyScheme]) -> nn.Module:
    """A new model with the weights that a packed file would give back: unpack(pack(model)).

    Its weights are ordinary floats on the levels of their grids: it is as good as the file, and as
    large and as fast as `model`. Args, Raises: as for `pack_tensors`.

    >>> from course_lib.formats.linear import Format, Scheme
    >>> model = nn.Linear(64, 2)
    >>> small = quantize_model(model, every_linear(model, Scheme(Format(2), "channel")))
    >>> [len(row.unique()) for row in small.weight]
    [4, 4]
    """
    return unpack_model(pack_model(model, schemes), model)
