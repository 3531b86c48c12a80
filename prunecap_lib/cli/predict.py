"""What does ``prunecap cost --gpu`` print? Training on GPUs that are not here, and what the figures rest on."""

from __future__ import annotations

from dataclasses import asdict, replace


def predictions(config, names: str, *, prune_ratio: float, pictures: int, price: float | None,
                **settings) -> list[dict]:
    """A row for each GPU, all tokens and pruned. ``settings`` go to ``costs.forecast.predict``."""
    # late: options are read without torch, which takes seconds
    from ..costs.forecast import GPUS, find_gpu, predict, this_machine
    from ..costs.forecast.memory import precision_on
    from ..costs.forecast.speed import DoesNotFit
    devices = GPUS if names == "all" else [this_machine() if name == "here" else find_gpu(name)
                                           for name in names.split(",")]
    ways = {"all tokens": replace(config, prune_ratio=0.0, schedule=None),
            "pruned": replace(config, prune_ratio=prune_ratio)}
    rows = []
    for device in devices:
        for way, setup in ways.items():
            about = {"gpu": device.name, "tokens": way, "precision": precision_on(setup, device.kernels)}
            try:
                found = predict(setup, device, **settings)
            except DoesNotFit as error:
                if len(devices) == 1:
                    raise
                rows.append(about | {"misfit": str(error)})
                continue
            rows.append(about | {
                "gpus": found.gpus, "batch": found.batch, "memory": found.memory,
                "flops_a_picture": found.flops / found.batch, "limit_seconds": found.limit,
                "step_seconds": found.seconds, "achieved_flops": found.rate,
                "pictures_a_second": found.pictures_a_second, "hours_an_epoch": found.hours(pictures),
                "cost_an_epoch": None if price is None else found.cost(pictures, price),
                "device": asdict(device)})
    return rows


def prediction_table(rows: list[dict], words: str, *, pictures: int, rate: float | None) -> list[str]:
    """The rows as lines, with the sentences that they need."""
    from ..costs.forecast.speed import GIB, LAUNCH
    fits = [row for row in rows if "misfit" not in row]
    width = max(len(row["gpu"]) for row in rows)
    priced = any(row["cost_an_epoch"] for row in fits)
    gpus = max((row["gpus"] for row in fits), default=1)
    lines = [f"predicted: {pictures:,} pictures an epoch" + (f", on {gpus} GPUs" if gpus > 1 else "") + f" ({words}):",
             f"  {'':{width}} {'tokens':10} {'batch':>6} {'memory':>9} {'pictures a second':>19} {'hours an epoch':>15}"
             + (f" {'cost an epoch':>15}" if priced else "")]
    for row in rows:
        start = f"  {row['gpu']:{width}} {row['tokens']:10}"
        if "misfit" in row:
            lines.append(f"{start} does not fit")
            continue
        rates = "{:,.0f} – {:,.0f}".format(*row["pictures_a_second"])
        hours = "{:.3f} – {:.3f}".format(*row["hours_an_epoch"])
        lines.append(f"{start} {row['batch']:6,} {row['memory'] / GIB:5.1f} GiB {rates:>19} {hours:>15}"
                     + (f" {'{:.2f} – {:.2f}'.format(*row['cost_an_epoch']):>15}" if priced else ""))
    if not fits:
        return lines
    low, high = min(row["device"]["share"][0] for row in fits), max(row["device"]["share"][1] for row in fits)
    rests = f"and on the measured rate of {rate / 1e12:g} TFLOP/s" if rate else (
        "on the peak rates of data sheets ('here': measured just now), and on an assumption: that training reaches "
        f"{low:.0%} to {high:.0%} of what these allow, as in benchmarks/predict.py, and takes {1e6 * LAUNCH[0]:.0f} to "
        f"{1e6 * LAUNCH[1]:.0f} µs to issue an operation")
    loading = "" if "features stored" in words else (
        f"Pictures are taken to be there: loaders must deliver up to "
        f"{max(row['pictures_a_second'][1] for row in fits):,.0f} a second. ")
    return [*lines, "This is a prediction; no GPU was asked. It rests on the operations and bytes of one training "
            f"step, counted, {rests}.", f"{loading}Validation is not in it."]
