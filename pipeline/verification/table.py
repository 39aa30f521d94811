"""Tables of a verification for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table


def tables(told: Mapping[str, Any]) -> Iterator[Table]:
    """The scores of `verify_order`: sets of pairs, templates, identification, FRUITS; a table each, where there are."""
    protocols = told["protocols"]
    of_pairs = {name: each for name, each in protocols.items() if "accuracy" in each}
    kinds = {
        _pairs: of_pairs,
        _points: of_pairs,
        _templates: {name: each for name, each in protocols.items() if "table" in each},
        _ranks: {name: each for name, each in protocols.items() if "rank_1" in each},
        _fruits: told["fruits"] or {},
    }
    for make, entries in kinds.items():
        if entries:
            yield make(entries, told)


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """What belongs below the tables: which checkpoint, how intervals were made, and the verdict."""
    pairs = [each for each in told["protocols"].values() if "accuracy" in each]
    if pairs:
        yield f"95 % intervals: {pairs[0]['interval95_by']}"
    shared = {
        name: each["people"]["in_several_folds"]
        for name, each in told["protocols"].items()
        if each.get("people", {}).get("in_several_folds")
    }
    if shared:
        yield "folds share people: " + ", ".join(f"{count} in {name}" for name, count in shared.items())
    mark = f"chosen on {told['chosen_on']}" if told["chosen_on"] else told["checkpoint"]
    yield f"checkpoint: {mark}; {_of_model(told['model'])}"
    if told["groups"]:
        rfw = told["groups"]["rfw"]
        yield f"rfw: {_percent(rfw['mean'])} +- {_percent(rfw['std'])} over groups, worst {rfw['worst']}"
    by_seed = (
        [name for name in told["seeds"][0]["protocols"] if name not in told["protocols"]] if "seeds" in told else []
    )
    if by_seed:
        yield f"seed by seed, in the file alone: {', '.join(by_seed)}"
    if told["verdict"]:
        yield told["verdict"]["said"]
    elif told["against"]:
        yield "no verdict: it needs sets of pairs of pictures, and there are none"


def _of_model(model: Mapping[str, Any]) -> str:
    one = model["seeds"][0] if "seeds" in model else model
    recipe = f", recipe {one['recipe_sha256'][:12]}" if one.get("recipe_sha256") else ", recipe not known"
    return f"{one['checkpoint']}{recipe}, {one['provider']}, {one['precision']}, {one['channel_order']}"


def _pairs(entries: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    against = (told["against"] or {}).get("protocols", {})
    partly = any(each["coverage"] < 1 for each in entries.values())  # eighty columns have no room for what goes unsaid
    more = [*(["coverage"] if partly else []), *(["other"] if against else [])]
    table = _table(f"{told['protocol']}, in %", "protocol", "pairs", "accuracy", "95 %", "EER", *more)
    for name, each in entries.items():
        low, high = each["interval95"]
        row = [
            name + (" (chosen on)" if name == told["chosen_on"] else ""),
            f"{each['pairs']:,}",
            f"{_percent(each['accuracy'])} +- {_percent(each['accuracy_std'])}",
            f"{_percent(low)} - {_percent(high)}",
            _percent(each["eer"]),
            *([f"{100 * each['coverage']:.1f}"] if partly else []),
        ]
        table.add_row(*row, *([_percent(against[name]["accuracy"])] if against else []))
    return table


def _points(entries: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    """TARs with the false accepts behind them, as far down as any set carries, and one target further."""
    targets = [point["far_target"] for point in next(iter(entries.values()))["tar_at_far"]]
    carried = max(sum(point["tar"] is not None for point in each["tar_at_far"]) for each in entries.values())
    shown = targets[: carried + 1]
    table = _table("TAR, in % (false accepts), at FAR", "protocol", *(f"{target:g}" for target in shown))
    for name, each in entries.items():
        table.add_row(name, *(_point(point) for point in each["tar_at_far"][: len(shown)]))
    return table


def _point(point: Mapping[str, Any]) -> str:
    if point["tar"] is None:
        return "insufficient data"
    return f"{_percent(point['tar'])} ({point['false_accepts']:.0f})"


def _templates(entries: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    targets = [f"{each['far_target']:g}" for each in next(iter(entries.values()))["table"]]
    table = _table("TAR @ nearest FPR, in %", "set", "setting", *targets, "rank 1")
    for name, each in entries.items():
        carried = {point["far_target"]: point["tar"] is not None for point in each["tar_at_far"]}
        cells = [
            _percent(point["tar"]) if carried[point["far_target"]] else "insufficient data" for point in each["table"]
        ]
        known = each["identification"]
        table.add_row(name, each["setting"], *cells, _percent(known["mean"]["rank_1"]) if known else "no galleries")
    return table


def _ranks(entries: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    table = _table("closed-set identification, in %", "set", "probes", "gallery", "rank 1", "rank 5", "rank 20")
    for name, each in entries.items():
        ranks = (_percent(each[f"rank_{k}"]) for k in (1, 5, 20))
        table.add_row(name, f"{each['probes']:,}", f"{each['gallery']:,}", *ranks)
    return table


def _fruits(entries: Mapping[str, Any], told: Mapping[str, Any]) -> Table:
    parts = ("detect", "align", "embed", "match", "whole")
    budgets = next(iter(entries.values()))["under"]
    table = _table(
        "FRUITS: one thread, ms p50 / p95; accuracy in %", "set", *parts, *(f"in {key[:-3]}" for key in budgets)
    )
    for name, each in entries.items():
        times = (f"{each['times'][part]['p50_ms']:.1f}/{each['times'][part]['p95_ms']:.1f}" for part in parts)
        under = (
            "too slow" if said["accuracy"] is None else _percent(said["accuracy"]) for said in each["under"].values()
        )
        table.add_row(name, *times, *under)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=place == 0)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
