"""What a pass showed, for xarray and polars. Neither is needed: each is imported when it is asked for."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from .arrays import F
from .errors import RefmodelError

TAP = re.compile(r"(?P<stem>.+?)-(?P<position>\d+)(?P<rest>(#\d+)?(@\d+)?)")


def library(name: str, wanted: str) -> Any:
    """A library that is there only if someone installed it. RefmodelError if nobody did."""
    try:
        return import_module(name)
    except ImportError:
        raise RefmodelError(f"{wanted} needs {name}: pip install {name}") from None


def by_stem(arrays: Mapping[str, F]) -> dict[str, dict[int, F]]:
    """Taps of one name and shape together: `l_out` -> position -> array. What has no position, or another shape, stays alone.

    arrays  tap name -> array, as a tapper was given them
    """
    found: dict[str, dict[int, F]] = {}
    for name, x in arrays.items():
        match = TAP.fullmatch(name)
        stem, position = (match["stem"] + match["rest"], int(match["position"])) if match else (name, -1)
        group = found.setdefault(stem, {})
        if position < 0 or any(one.shape != x.shape for one in group.values()):
            found.setdefault(name, {})[-1] = x
        else:
            group[position] = x
    return {name: group for name, group in found.items() if group}


def to_xarray(arrays: Mapping[str, F]) -> Any:
    """Tapped arrays as an xarray.Dataset. RefmodelError without xarray.

    arrays  tap name -> array [T, ...]

    `l_out-0`, `l_out-1`, ... become one variable `l_out` with the axes position, token and axis_1; positions are its coordinate.
    Other arrays are variables of their own. Each variable has its own names of axes, such as l_out.token, because lengths differ.
    """
    xarray = library("xarray", "to_xarray")
    variables = {}
    for stem, group in by_stem(arrays).items():
        x = np.stack(list(group.values()))
        dims = [f"{stem}.position", f"{stem}.token", *(f"{stem}.axis_{k}" for k in range(1, x.ndim - 1))][: x.ndim]
        alone = -1 in group
        coords = {} if alone else {dims[0]: list(group)}
        variables[stem] = xarray.DataArray(x[0], dims=dims[1:]) if alone else xarray.DataArray(x, dims=dims, coords=coords)
    return xarray.Dataset(variables)


def to_polars(arrays: Mapping[str, F]) -> Any:
    """Tapped arrays as a polars.DataFrame: a row for each tap and token. RefmodelError without polars.

    arrays  tap name -> array [T, ...]

    Columns: tap; stem and position (null where it has none); token; values, a list of the token's numbers in C order.
    """
    polars = library("polars", "to_polars")
    rows = []
    for name, x in arrays.items():
        match = TAP.fullmatch(name)
        stem, position = (match["stem"] + match["rest"], int(match["position"])) if match else (name, None)
        for token, values in enumerate(x.reshape(len(x), -1)):
            rows.append((name, stem, position, token, values.astype(np.float64).tolist()))
    schema = {"tap": polars.String, "stem": polars.String, "position": polars.Int64, "token": polars.Int64}
    return polars.DataFrame(rows, schema=schema | {"values": polars.List(polars.Float64)}, orient="row")


def table(records: Sequence[Mapping[str, Any]]) -> Any:
    """Records of one form as a polars.DataFrame. RefmodelError without polars."""
    return library("polars", "to_polars").DataFrame(list(records), infer_schema_length=None)


def dataset(variables: Mapping[str, tuple[Sequence[str], Any]], **about: str) -> Any:
    """An xarray.Dataset of variables: name -> (axes, values), and its attributes. RefmodelError without xarray."""
    return library("xarray", "to_xarray").Dataset(
        {name: (tuple(axes), values) for name, (axes, values) in variables.items()}, attrs=about
    )
