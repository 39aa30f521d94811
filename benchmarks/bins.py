"""Verification sets as insightface's `.bin` files: `lfw.bin`, `cfp_fp.bin`, `agedb_30.bin` and the world's own.

A `.bin` is a pickle of `([picture, picture, ...], [same person?, ...])`, two encoded pictures per pair. A pickle is a
program, and these come from strangers; so none is ever run here. `read_bin` interprets the two dozen opcodes that such
a file consists of, on plain data: none of them can call or import, and numpy's arrays are put together from their
parts without numpy.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from recognition.files import whole_file
from recognition.formats.pixels import read_pixels

SIDE_PX = 112  # the ArcFace template
MAX_FILE_BYTES = 2**31  # the field's largest set, CFP-FP, has about 0.1 GB
MAX_PAIRS = 100_000  # the field's sets have 6,000 to 7,000; 100,000 pairs decode to 7.5 GB
MAX_SIDE_PX = 1024  # of a stored picture: a few kilobytes of JPEG can claim 65,535 x 65,535

Picture = UInt8[np.ndarray, "112 112 3"]


def read_bin(path: str | os.PathLike[str]) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Bool[np.ndarray, " p"]]:
    """Reads a verification set; runs nothing that is in it.

    Pictures of another width are resized like insightface's `load_bin` does it: short edge to 112, bicubic.

    Args:
        path: A `.bin` of Python 2 or 3 whose pictures are JPEG or PNG, as bytes or as arrays of bytes.
    Returns:
        Pictures (n = 2p, RGB), rows 2i and 2i+1 being pair i; and whether the pair is of one person.
    Raises:
        ValueError: If the file is not such a set, or is larger than the limits of this module; names the file and the
            fault.
        OSError: If the file cannot be read.
    """
    stored, same = read_encoded(path)
    pictures = np.empty((len(stored), SIDE_PX, SIDE_PX, 3), np.uint8)
    for index, picture in enumerate(stored):
        pictures[index] = decode(picture, f"{path}: picture {index}")
    return pictures, same


def read_encoded(path: str | os.PathLike[str]) -> tuple[list[bytes], Bool[np.ndarray, " p"]]:
    """Reads a verification set as `read_bin` does, and leaves its pictures as they are stored: a fiftieth of the room.

    Returns:
        Encoded pictures, 2i and 2i+1 being pair i, for `decode`; and whether the pair is of one person.
    Raises:
        ValueError, OSError: As `read_bin`, but for what only decoding shows.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}")
    try:
        stored, same = _pairs_of(_plain_data(path.read_bytes()))
        return [_octets(picture, index) for index, picture in enumerate(stored)], same
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from fault


def write_bin(path: str | os.PathLike[str], jpegs: Sequence[bytes], same: Bool[np.ndarray, " p"]) -> None:
    """Writes a verification set that `read_bin` and insightface's `load_bin` read.

    The same arguments give the same bytes. The file appears whole or not at all: it is written beside its place,
    flushed to the disk and then renamed.

    Args:
        path: Where it goes.
        jpegs: Encoded pictures, 2i and 2i+1 being pair i.
        same: Whether pair i shows one person.
    Raises:
        ValueError: If there is no pair, or if the pictures are not two for each pair.
    """
    path = Path(path)
    if len(same) == 0 or len(jpegs) != 2 * len(same):
        raise ValueError(
            f"{path}: expected two pictures for each of at least one pair, got {len(jpegs)} for {len(same)} pairs"
        )
    with whole_file(path) as file:
        pickle.dump((list(jpegs), [bool(s) for s in same]), file, protocol=4)


def _pairs_of(data: object) -> tuple[Sequence[object], Bool[np.ndarray, " p"]]:
    """Checks that unpickled data is a list of pictures and a list of labels, two pictures for each label."""
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise ValueError(f"expected a pair (pictures, labels), got {_kind(data)}")
    pictures, labels = data
    labels = labels.booleans() if isinstance(labels, _Array) else labels
    if not (isinstance(pictures, list | tuple) and isinstance(labels, list | tuple)):
        raise ValueError(f"expected two lists (pictures, labels), got {_kind(pictures)} and {_kind(labels)}")
    if len(pictures) != 2 * len(labels) or not 1 <= len(labels) <= MAX_PAIRS:
        raise ValueError(
            f"expected two pictures for each of 1 to {MAX_PAIRS} pairs, "
            f"got {len(pictures)} pictures and {len(labels)} labels"
        )
    return pictures, np.array([_label(label, index) for index, label in enumerate(labels)], bool)


def _label(label: object, index: int) -> bool:
    if isinstance(label, _Array):
        (label,) = label.booleans() if label.size == 1 else (label,)
    if not (isinstance(label, int) and label in (0, 1)):
        raise ValueError(f"expected True or False as label {index}, got {_kind(label)}")
    return bool(label)


def _octets(picture: object, index: int) -> bytes:
    if isinstance(picture, _Array | _Latin1):
        return picture.octets()
    if not isinstance(picture, bytes):
        raise ValueError(f"expected bytes as picture {index}, got {_kind(picture)}")
    return picture


def decode(encoded: bytes, name: str) -> Picture:
    """One stored picture, RGB, resized as `read_bin` says.

    Raises:
        ValueError: If it is not a whole JPEG or PNG, grey or RGB, too large, or not square; begins with `name`.
    """
    rgb = read_pixels(encoded, name, _expect_sides)
    height, width = rgb.shape[:2]
    if width != SIDE_PX:
        scale = SIDE_PX / min(width, height)
        rgb = cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_CUBIC)
    if rgb.shape != (SIDE_PX, SIDE_PX, 3):
        raise ValueError(f"{name}: expected a square aligned face, got {width}x{height}")
    return rgb


def _expect_sides(width: int, height: int) -> None:
    if not (width <= MAX_SIDE_PX and height <= MAX_SIDE_PX):
        raise ValueError(f"expected sides of at most {MAX_SIDE_PX} pixels, got {width}x{height}")


# --- a pickle as data -------------------------------------------------------------------------------------------------


class _Latin1:
    """Bytes as Python 3 writes them in protocols 0 to 2: as text.

    Turned into bytes when they are first used, and once, so that a file which names one text a million times costs
    the memory of one.
    """

    def __init__(self, text: object, codec: object) -> None:
        if not isinstance(text, str) or codec != "latin1":
            raise ValueError("expected latin1 text, got something else")
        self.content: str | bytes = text

    def octets(self) -> bytes:
        if isinstance(self.content, str):
            self.content = self.content.encode("latin1")
        return self.content

    def __len__(self) -> int:
        return len(self.content)


class _Array:
    """A pickled numpy array or scalar, as the parts that it was pickled from; numpy never sees them."""

    def __init__(self) -> None:
        self.code, self.size = "", 0
        self.content: bytes | _Latin1 = b""

    def build(self, state: object) -> None:
        """Takes numpy's state (version, shape, dtype, Fortran order, content)."""
        if not (
            isinstance(state, tuple)
            and len(state) == 5
            and isinstance(state[1], tuple)
            and isinstance(state[2], _Dtype)
        ):
            raise ValueError("expected the state of a numpy array, got something else")
        _, shape, dtype, _, content = state
        if not (
            len(shape) == 1
            and isinstance(shape[0], int)
            and isinstance(content, bytes | _Latin1)
            and shape[0] == len(content)
        ):
            raise ValueError("expected a one-dimensional numpy array of one byte per element, got another one")
        self.code, self.size, self.content = dtype.code, shape[0], content

    def octets(self) -> bytes:
        if self.code not in ("u1", "|u1", "i1", "|i1", "|S1", "S1"):
            raise ValueError(f"expected a numpy array of bytes, got dtype {self.code!r}")
        return self._bytes()

    def booleans(self) -> list[bool]:
        if self.code not in ("b1", "|b1"):
            raise ValueError(f"expected a numpy array of bool, got dtype {self.code!r}")
        return [bool(value) for value in self._bytes()]

    def _bytes(self) -> bytes:
        return self.content.octets() if isinstance(self.content, _Latin1) else self.content


class _Dtype:
    """A pickled numpy dtype: its code. Its state (byte order and so on) says nothing about types of one byte."""

    def __init__(self, code: str) -> None:
        self.code = code

    def build(self, state: object) -> None:
        del state


def _make_array(kind: object, shape: object, code: object) -> _Array:
    del kind, shape, code  # numpy makes an empty array here and fills it by BUILD
    return _Array()


def _make_dtype(code: object, *rest: object) -> _Dtype:
    if not isinstance(code, str) or len(rest) > 2:
        raise ValueError("expected the name of a numpy dtype, got something else")
    return _Dtype(code)


def _make_scalar(dtype: object, content: object) -> _Array:
    array = _Array()
    array.build((1, (1,), dtype, False, content))
    return array


_NAMES: dict[tuple[str, str], Callable[..., object] | None] = {  # what a set may name, and what stands in for it
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy.core.multiarray", "scalar"): _make_scalar,
    ("numpy._core.multiarray", "scalar"): _make_scalar,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _Latin1,
}
_MARK = object()
_NUMBERS = ("BININT", "BININT1", "BININT2", "INT")
_STRINGS = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE")
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _plain_data(raw: bytes) -> object:
    """What a pickle holds, if it holds nothing but lists, tuples, numbers, text, bytes and numpy arrays of bytes.

    Raises:
        ValueError: If it holds anything else, is damaged, or goes on after its end.
    """
    machine, stream = _Machine(), io.BytesIO(raw)
    for opcode, argument, position in pickletools.genops(stream):  # ValueError on damage; ends after STOP
        try:
            machine.step(opcode.name, argument)
        except (
            IndexError,
            KeyError,
            TypeError,
        ) as fault:  # a stack too short, an unknown memo, a wrong call: a damaged program
            raise ValueError(f"damaged pickle at byte {position}: {opcode.name} does not fit") from fault
    if stream.read(1):
        raise ValueError(f"expected the end of the file at byte {stream.tell() - 1}, got more")
    if len(machine.stack) != 1:
        raise ValueError(f"damaged pickle: expected one object, got {len(machine.stack)}")
    return machine.stack[0]


class _Machine:
    """A pickle machine without the opcodes that call or import."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        if name in _NUMBERS or name in _STRINGS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINSTRING", "SHORT_BINSTRING"):  # bytes of Python 2, which pickletools shows as latin1 text
            stack.append(argument.encode("latin1"))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "APPEND":
            value = stack.pop()
            _as_list(stack[-1]).append(value)
        elif name == "APPENDS":
            values = self._down_to_mark()
            _as_list(stack[-1]).extend(values)
        elif name in ("TUPLE", "LIST"):
            values = self._down_to_mark()
            stack.append(tuple(values) if name == "TUPLE" else values)
        elif name in _TUPLES:
            size = _TUPLES[name]
            stack[-size:] = [tuple(stack[-size:])] if len(stack) >= size else _too_short()
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            module, _, thing = argument.partition(" ")
            stack.append(_Name(module, thing))
        elif name == "STACK_GLOBAL":
            thing, module = stack.pop(), stack.pop()
            stack.append(_Name(module, thing))
        elif name == "REDUCE":
            arguments, callee = stack.pop(), stack.pop()
            stack.append(_stand_in(callee)(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Array | _Dtype):
                raise ValueError(f"refused: the pickle sets the state of {_kind(stack[-1])}")
            stack[-1].build(state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"refused: a verification set has no use for the pickle opcode {name}")

    def _down_to_mark(self) -> list[Any]:
        mark = len(self.stack) - 1
        while self.stack[mark] is not _MARK:  # IndexError below the stack: a damaged program
            mark -= 1
            if mark < 0:
                raise IndexError("no mark")
        values = self.stack[mark + 1 :]
        del self.stack[mark:]
        return values


class _Name:
    """A name that the pickle would import. Only those of `_NAMES` may even be mentioned."""

    def __init__(self, module: object, thing: object) -> None:
        if not (isinstance(module, str) and isinstance(thing, str) and (module, thing) in _NAMES):
            raise ValueError(
                f"refused: the pickle asks for {f'{module}.{thing}'[:80] if isinstance(module, str) else _kind(module)}"
            )
        self.key = (module, thing)


def _stand_in(callee: object) -> Callable[..., object]:
    stand_in = _NAMES[callee.key] if isinstance(callee, _Name) else None
    if stand_in is None:
        raise ValueError(f"refused: the pickle calls {_kind(callee)}")
    return stand_in


def _as_list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"refused: the pickle appends to {_kind(value)}")
    return value


def _too_short() -> list[Any]:
    raise IndexError("stack too short")


def _kind(value: object) -> str:
    return f"{value.key[0]}.{value.key[1]}" if isinstance(value, _Name) else type(value).__name__.strip("_")
