"""Jobs, intensity, capacity and regions from files that people hand in, as columns. One line per fault, up to twenty.

Here: what the columns are and which values fit. Not here: CSV and Parquet themselves (`carbon/tabular.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from greenops_pipelines.carbon import factors, tabular
from greenops_pipelines.carbon.files import FileProvider
from greenops_pipelines.carbon.regions import read_regions_file
from greenops_pipelines.errors import BadInput, PermanentError
from greenops_pipelines.placement.model import MINUTE, Bools, Floats, Grid, Ints, Jobs

_MAX_FAULTS = 20
_MAX_DAYS = 3_660
JOB_COLUMNS = (
    "id", "submitted_at", "earliest_start", "deadline", "duration_minutes", "power_kw", "interruptible", "width",
    "home_zone", "allowed_zones", "data_gb",
)  # fmt: skip
_REQUIRED = {"id", "earliest_start", "deadline", "duration_minutes", "power_kw", "home_zone"}


@dataclass(frozen=True)
class Region:
    """A place as a `--regions` file describes it. Without one: PUE 1, nothing moved, nothing manufactured."""

    zone: str
    pue: float = 1.0
    price_per_kwh: float | None = None


@dataclass(frozen=True)
class Regions:
    """The places of a `--regions` file, and the factors that hold for all of them."""

    by_zone: dict[str, Region] = field(default_factory=dict)
    network_kwh_per_gb: float = 0.0
    embodied_g_per_kwh: float = 0.0


@dataclass(frozen=True)
class Series:
    """Intensity of zones on one grid of slots."""

    zones: tuple[str, ...]
    start: int
    step: int
    values: Floats


def intensity(path: str, step_minutes: int | None, emission_factor_type: str = "lifecycle") -> Series:
    """The intensity of all zones of a file or glob, in either form that the provider `file` reads.

    Slots as long as the file's own intervals unless `step_minutes` says otherwise: a longer interval fills several slots;
    a slot over several intervals has their mean, and no value where one of them has none.
    """
    try:
        provider = FileProvider(path, emission_factor_type, variable="--intensity")
        rows = provider.rows
    except PermanentError as error:
        raise BadInput(f"--intensity: {error}".replace("--intensity: --intensity", "--intensity")) from None
    return series(rows, step_minutes)


def series(rows: pa.Table, step_minutes: int | None = None) -> Series:
    """Rows `zone, datetime, resolution_minutes, carbon_intensity_g_per_kwh` on a grid; a slot without a row is a gap."""
    zone, codes = np.unique(rows["zone"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    time = rows["datetime"].cast(pa.int64()).to_numpy()
    length = rows["resolution_minutes"].to_numpy().astype(np.int64) * MINUTE
    value = rows["carbon_intensity_g_per_kwh"].to_numpy(zero_copy_only=False).astype(float)
    step = step_minutes * MINUTE if step_minutes else int(np.bincount(length // MINUTE).argmax()) * MINUTE
    unit = int(np.gcd.reduce([step, *np.unique(length).tolist()]))
    start = int(time.min()) // step * step
    stop = -(-int((time + length).max()) // step) * step
    if (stop - start) / MINUTE > _MAX_DAYS * 1440:
        raise BadInput(f"--intensity: found {(stop - start) // MINUTE // 1440:,} days, allowed: {_MAX_DAYS:,}")
    fine = np.full((len(zone), (stop - start) // unit), np.nan)
    for offset in range(int(length.max()) // unit):
        within = offset * unit < length
        fine[codes[within], (time[within] - start) // unit + offset] = value[within]
    return Series(tuple(zone.tolist()), start, step, fine.reshape(len(zone), -1, step // unit).mean(axis=2))


def jobs(path: Path, zones: Sequence[str]) -> tuple[Jobs, list[str]]:
    """The jobs of a file, for places in the order of `zones`, and what a person should know about them.

    Raises `BadInput` with a line per fault. The same job twice is taken once; another one under its id is a fault.
    """
    if not path.is_file():
        raise BadInput(f"--jobs: {path}: no such file")
    tabular.matching(str(path), "--jobs")
    with tabular.opened(path) as (connection, types):
        missing = sorted(_REQUIRED - set(types))
        if missing:
            raise BadInput(
                f"{path.name}: found no column {', '.join(missing)}; allowed: {', '.join(JOB_COLUMNS)}, "
                f"of which {', '.join(sorted(set(JOB_COLUMNS) - _REQUIRED))} may be left out"
            )
        text = {name: name in types for name in JOB_COLUMNS}
        times = {
            name: tabular.instant(name, types, path)
            for name in ("submitted_at", "earliest_start", "deadline")
            if text[name]
        }
        times.setdefault("submitted_at", times["earliest_start"])

        def column(name: str, kind: str, default: str) -> str:
            empty = f"coalesce(trim(cast({name} as varchar)), '') = ''"
            return f"case when {empty} then {default} else try_cast({name} as {kind}) end" if text[name] else default

        def shown(name: str) -> str:
            return f"cast({name} as varchar)" if text[name] else "''"

        rows = connection.sql(
            f"""
            select line, trim(cast(id as varchar)) as id,
                epoch_us({times["submitted_at"]}) as submitted, epoch_us({times["earliest_start"]}) as earliest,
                epoch_us({times["deadline"]}) as deadline, {column("duration_minutes", "double", "null")} as minutes,
                {column("power_kw", "double", "null")} as power,
                {column("interruptible", "boolean", "false")} as interruptible,
                {column("width", "double", "1.0")} as width, trim(cast(home_zone as varchar)) as home,
                {"coalesce(cast(allowed_zones as varchar), '')" if text["allowed_zones"] else "''"} as allowed,
                {column("data_gb", "double", "0.0")} as data,
                {", ".join(f"{shown(name)} as raw_{name}" for name in JOB_COLUMNS)}
            from rows_of_file
            """
        ).to_arrow_table()
    if not rows.num_rows:
        raise BadInput(f"{path.name}: found no jobs, allowed: at least one")
    return _jobs(path, rows, tuple(zones))


def _jobs(path: Path, rows: pa.Table, zones: tuple[str, ...]) -> tuple[Jobs, list[str]]:
    faults = _Faults(path, rows)
    ids = rows["id"].to_numpy(zero_copy_only=False).astype(object)
    faults.add("id", np.array([value is None or not value for value in ids]), "a name")
    time = {}
    for name, field_ in (("submitted", "submitted_at"), ("earliest", "earliest_start"), ("deadline", "deadline")):
        faults.add(
            field_, rows[name].is_null().to_numpy(zero_copy_only=False), "a time with its zone, e.g. 2022-01-01T00:00Z"
        )
        time[name] = _whole(rows[name])
    minutes, power, width, data = (_number(rows[name]) for name in ("minutes", "power", "width", "data"))
    faults.add("duration_minutes", ~((minutes > 0) & (minutes < _MAX_DAYS * 1440)), "a number > 0")
    faults.add("power_kw", ~((power > 0) & (power < 1e9)), "a number > 0")
    faults.add("width", ~((width >= 1) & (width == np.floor(width)) & (width < 1e6)), "a whole number >= 1")
    faults.add("data_gb", ~((data >= 0) & (data < 1e12)), "a number >= 0")
    faults.add("interruptible", rows["interruptible"].is_null().to_numpy(zero_copy_only=False), "true or false")
    readable = np.array(pc.and_(rows["deadline"].is_valid(), rows["earliest"].is_valid()))
    faults.add("deadline", readable & (time["deadline"] <= time["earliest"]), "a time after earliest_start")
    duration = np.round(np.where(np.isfinite(minutes), minutes, 0) * MINUTE).astype(np.int64)
    release = np.maximum(time["earliest"], time["submitted"])
    short = readable & (time["deadline"] > time["earliest"]) & (release + duration > time["deadline"])
    faults.add("duration_minutes", short, "at most the time from earliest_start (and submitted_at) to deadline")
    position = {zone: number for number, zone in enumerate(zones)}
    homes = rows["home"].to_pylist()
    home = np.array([position.get(name, -1) for name in homes], dtype=np.int64)
    faults.add("home_zone", home < 0, f"a zone of the intensity file: {', '.join(zones[:20])}")
    allowed, unknown = _allowed(rows["allowed"].to_pylist(), home, position)
    faults.add("allowed_zones", ~allowed.any(axis=1) & (home >= 0), f"at least one of: {', '.join(zones[:20])}")
    first = _once(rows, ids, faults)
    faults.refuse()
    notes = []
    if len(first) < rows.num_rows:
        notes.append(
            f"{path.name}: {rows.num_rows - len(first)} jobs stand there a second time with the same content: taken once"
        )
    if unknown:
        notes.append(
            f"{path.name}: allowed_zones: {', '.join(sorted(unknown))}: no intensity, so nothing is placed there"
        )
    late = int((time["submitted"] > time["earliest"])[first].sum())
    if late:
        notes.append(
            f"{path.name}: {late} jobs were submitted after their earliest start: only the baseline starts before"
        )
    away = int((~allowed[np.arange(len(home)), home])[first].sum())
    if away:
        notes.append(
            f"{path.name}: {away} jobs may not run at home: only the baseline does, which counts as a violation"
        )
    made = Jobs(
        tuple(str(value) for value in ids),
        time["submitted"],
        time["earliest"],
        time["deadline"],
        duration,
        power * width,
        rows["interruptible"].to_numpy(zero_copy_only=False).astype(bool),
        home,
        allowed,
        data,
    )
    return made.take(first), notes


def _allowed(listed: list[str], home: Ints, position: dict[str, int]) -> tuple[Bools, set[str]]:
    """[jobs, zones]; an empty list is home alone. Few lists differ, so each is read once."""
    unknown: set[str] = set()
    rows: dict[str, Ints] = {}
    allowed = np.zeros((len(listed), len(position)), dtype=bool)
    texts = np.array(listed, dtype=object)
    for text in dict.fromkeys(listed):
        names = [name.strip() for name in text.split(";") if name.strip()]
        unknown |= {name for name in names if name not in position}
        rows[text] = np.array([position[name] for name in names if name in position], dtype=np.int64)
        here = np.flatnonzero(texts == text)
        if names:
            allowed[np.ix_(here, rows[text])] = True
        else:
            inside = here[home[here] >= 0]
            allowed[inside, home[inside]] = True
    return allowed, unknown


def _once(rows: pa.Table, ids: np.ndarray, faults: _Faults) -> Ints:
    """The first row of every id; another row with the same id has to be the same job."""
    _, first, inverse = np.unique(ids.astype(str), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(ids)))
    if len(again):
        content = [name for name in rows.column_names if name != "line" and not name.startswith("raw_")]
        other = np.zeros(len(ids), dtype=bool)
        for name in content:
            values = np.array(rows[name].to_pylist(), dtype=object)
            if name == "allowed":
                # A set of zones: neither their order nor blanks are content.
                sets = {
                    text: frozenset(zone.strip() for zone in text.split(";") if zone.strip()) for text in set(values)
                }
                values = np.array([sets[text] for text in values], dtype=object)
            other[again] |= values[again] != values[first[inverse][again]]
        faults.add("id", other, "each id once, or again with the same content")
    return np.sort(first)


class _Faults:
    """What does not fit, by line."""

    def __init__(self, path: Path, rows: pa.Table) -> None:
        self._path, self._rows = path, rows
        self._lines = rows["line"].to_numpy()
        self._found: list[tuple[int, str]] = []
        self._count = 0

    def add(self, name: str, wrong: Bools, allowed: str) -> None:
        index = np.flatnonzero(wrong)
        self._count += len(index)
        for row in index[:_MAX_FAULTS]:
            found = self._rows[f"raw_{name}"][int(row)].as_py()
            place = tabular.place(self._path, int(self._lines[row]))
            self._found.append(
                (int(self._lines[row]), f"{place}: {name}: found {found if found else 'nothing'}, allowed: {allowed}")
            )

    def refuse(self) -> None:
        if self._found:
            lines = [text for _, text in sorted(self._found)[:_MAX_FAULTS]]
            more = [f"... and {self._count - len(lines)} more"] if self._count > len(lines) else []
            raise BadInput("\n".join(lines + more))


def _whole(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int64)


def _number(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=float)


def capacity(path: Path | None, source: Series) -> tuple[Floats, list[str]]:
    """[zones, slots] kW, unlimited where the file says nothing. With times, a row holds until the zone's next one."""
    limits = np.full(source.values.shape, np.inf)
    if path is None:
        return limits, []
    if not path.is_file():
        raise BadInput(f"--capacity: {path}: no such file")
    tabular.matching(str(path), "--capacity")
    with tabular.opened(path) as (connection, types):
        if not {"zone", "capacity_kw"} <= set(types):
            raise BadInput(
                f"{path.name}: found columns {', '.join(sorted(set(types) - {'line'}))}; "
                "allowed: zone, capacity_kw, or zone, datetime, capacity_kw"
            )
        time = tabular.instant("datetime", types, path) if "datetime" in types else "null::timestamptz"
        raw = "cast(datetime as varchar)" if "datetime" in types else "''"
        rows = connection.sql(
            f"select line, trim(cast(zone as varchar)) as zone, epoch_us({time}) as time, {raw} as raw_time, "
            "try_cast(capacity_kw as double) as kw, cast(capacity_kw as varchar) as raw_kw "
            "from rows_of_file order by time, line"
        ).to_arrow_table()
    line, zone, kw = (rows[name].to_numpy(zero_copy_only=False) for name in ("line", "zone", "kw"))
    _first_fault(path, line, ~((kw >= 0) & (kw < 1e12)), rows["raw_kw"], "capacity_kw", "a number >= 0")
    timed = "datetime" in types
    if timed:
        missing = rows["time"].is_null().to_numpy(zero_copy_only=False)
        _first_fault(path, line, missing, rows["raw_time"], "datetime", "a time with its zone, e.g. 2022-01-01T00:00Z")
    time = rows["time"].fill_null(0).to_numpy()
    keys = np.char.add(zone.astype(str), np.char.add("|", time.astype(str)))
    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(keys), dtype=bool)
    again[first] = False
    _first_fault(path, line, again, rows["zone"], "zone", "each zone once" + (" per datetime" if timed else ""))
    for number, name in enumerate(source.zones):
        mine = np.flatnonzero(zone == name)
        if not len(mine):
            continue
        begun: Ints = np.asarray(time[mine] if timed else np.full(len(mine), source.start), dtype=np.int64)
        # The newest row that has begun holds; before the first there is no limit.
        slots: Ints = source.start + np.arange(source.values.shape[1], dtype=np.int64) * source.step
        holds: Ints = np.asarray(np.searchsorted(begun, slots, "right")) - 1
        values: Floats = np.asarray(kw[mine], dtype=float)
        limits[number] = np.where(holds >= 0, values[np.maximum(holds, 0)], np.inf)
        # One that begins inside a slot holds for all of it, if it is the lower one.
        at = (begun - source.start) // source.step
        inside = ((begun - source.start) % source.step != 0) & (at >= 0) & (at < len(slots))
        np.minimum.at(limits[number], at[inside], values[inside])
    strangers = sorted(set(zone.astype(str)) - set(source.zones))
    notes = [f"{path.name}: {', '.join(strangers)}: no such zone in the intensity file"] if strangers else []
    return limits, notes


def _first_fault(path: Path, line: Ints, wrong: Bools, raw: pa.ChunkedArray, name: str, allowed: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[np.argmin(line[wrong])])
        found = raw[row].as_py() or "nothing"
        raise BadInput(f"{tabular.place(path, int(line[row]))}: {name}: found {found}, allowed: {allowed}")


def regions(path: Path | None) -> Regions:
    """Places of `ops/regions.yaml`'s form (YAML), or of a CSV `zone, pue[, price_per_kwh]`.

    Moving data and manufacture count with the project's emission factors; a CSV's columns `network_kwh_per_gb` and
    `embodied_g_per_kwh` (one value each) replace them. Of several regions in one zone the first stands for all.
    """
    if path is None:
        return Regions()
    if not path.is_file():
        raise BadInput(f"--regions: {path}: no such file")
    factor = factors.values(factors.read_factors())
    network, embodied = factor["network_kwh_per_gb"], factors.embodied_g_per_kwh(factor)
    found: dict[str, Region] = {}
    if path.suffix.lower() in {".yaml", ".yml"}:
        for region in read_regions_file(path):
            price = None if region.price_per_kwh is None else float(region.price_per_kwh)
            found.setdefault(region.zone, Region(region.zone, region.pue, price))
        return Regions(found, network, embodied)
    tabular.matching(str(path), "--regions")
    with tabular.opened(path) as (connection, types):
        if not {"zone", "pue"} <= set(types):
            raise BadInput(
                f"{path.name}: found columns {', '.join(sorted(set(types) - {'line'}))}; allowed: zone, pue[, price_per_kwh]"
            )
        names = [n for n in ("pue", "price_per_kwh", "network_kwh_per_gb", "embodied_g_per_kwh") if n in types]
        casts = ", ".join(f"try_cast({n} as double) as {n}, cast({n} as varchar) as raw_{n}" for n in names)
        rows = connection.sql(
            f"select line, trim(cast(zone as varchar)) as zone, {casts} from rows_of_file"
        ).to_arrow_table()
    line = rows["line"].to_numpy()
    nameless = pc.equal(pc.coalesce(rows["zone"], ""), "").to_numpy(zero_copy_only=False)
    _first_fault(path, line, nameless, rows["zone"], "zone", "a zone of the intensity file")
    for name in names:
        value = _number(rows[name])
        low = 1.0 if name == "pue" else 0.0
        _first_fault(path, line, ~((value >= low) & (value < 1e9)), rows[f"raw_{name}"], name, f"a number >= {low:g}")
    for name in ("network_kwh_per_gb", "embodied_g_per_kwh"):
        if name in names:
            value = _number(rows[name])
            _first_fault(path, line, value != value[0], rows[f"raw_{name}"], name, "one value for all zones")
    for row in rows.to_pylist():
        if row["zone"] in found:
            raise BadInput(
                f"{tabular.place(path, row['line'])}: zone: found {row['zone']} a second time, allowed: once"
            )
        found[row["zone"]] = Region(row["zone"], row["pue"], row.get("price_per_kwh"))
        network, embodied = row.get("network_kwh_per_gb", network), row.get("embodied_g_per_kwh", embodied)
    return Regions(found, network, embodied)


def grid(source: Series, limits: Floats, regions: Regions) -> Grid:
    """The zones of an intensity file as places."""
    known = [regions.by_zone.get(zone, Region(zone)) for zone in source.zones]
    prices = [region.price_per_kwh for region in known]
    return Grid(
        source.zones,
        source.start,
        source.step,
        source.values,
        np.array([region.pue for region in known]),
        limits,
        regions.network_kwh_per_gb,
        regions.embodied_g_per_kwh,
        None if any(price is None for price in prices) else np.array(prices, dtype=float),
    )
