"""`memmeta memory`: peak memory against the inner steps."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from memmeta.command_line import Command, NameOf, as_json_option
from memmeta.config import DataConfig, LearnerConfig, parse
from memmeta.memory import table as memory_table
from memmeta.memory.figure import plot_peaks
from memmeta.networks import BACKBONES, HEADS
from memmeta.system.devices import chosen_device


class _ManyValues(Command):
    """Accepts several values after one option: `--option 1 5` or `--option=1 5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {o for p in self.params if getattr(p, "multiple", False) for o in p.opts}
        expanded: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                name = word.partition("=")[0]
                option = name if name in many else ""
            elif option and expanded[-1] != option:
                expanded.append(option)
            expanded.append(word)
        return super().parse_args(ctx, expanded)


_FOR_IMAGES = BACKBONES.names(lambda backbone: backbone.blocks > 0)


@click.command(cls=_ManyValues, epilog="Example: memmeta memory --inner-steps 1 10 50 --filters 32")
@click.option("--inner-steps", type=click.IntRange(min=0), multiple=True,
              default=(1, 5, 10, 15, 20), show_default=True, help="K, one or more.")  # fmt: skip
@click.option("--cg-steps", default=20, show_default=True, help="N.")
@click.option("--task-batch", default=1, show_default=True, help="Tasks in a step.")
@click.option("--chunk", type=click.IntRange(min=1), multiple=True,
              help="Images in the backbone at a time, one or more, besides all.")  # fmt: skip
@click.option("--backbone", type=NameOf(_FOR_IMAGES), default="conv4", show_default=True)
@click.option("--filters", default=64, show_default=True)
@click.option("--norm", type=click.Choice(["batch", "frozen", "group"]), default="batch",
              show_default=True)  # fmt: skip
@click.option("--head", type=NameOf([*HEADS]), default="linear",
              show_default=True)  # fmt: skip
@click.option("--image-size", default=32, show_default=True, help="Height and width, RGB.")
@click.option("--ways", default=5, show_default=True)
@click.option("--shots", default=5, show_default=True)
@click.option("--queries", default=5, show_default=True)
@click.option("--device", help="Measure on this device; default: predict, which needs none.")
@as_json_option
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the figure into this file.")
def memory(
    inner_steps: tuple[int, ...],
    chunk: tuple[int, ...],
    image_size: int,
    ways: int,
    shots: int,
    queries: int,
    device: str | None,
    as_json: bool,
    plot: Path | None,
    **learner: object,
) -> None:
    """Peak memory of a step against the inner steps K, for all algorithms."""
    computed = []
    episode = {"ways": ways, "shots": shots, "queries": queries}
    rows = memory_table.rows(
        parse(DataConfig, episode, "command line"),
        parse(LearnerConfig, learner, "command line"),
        (3, image_size, image_size),
        inner_steps,
        chunk,
        chosen_device(device) if device else None,
    )
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        for row in progress.track(rows, description="methods and K", total=None):
            computed.append(row)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in computed], indent=1))
    else:
        Console(highlight=False).print(memory_table.table(computed))
    if plot:
        title = f"{learner['backbone']}, {image_size}×{image_size}, {ways}-way {shots}-shot"
        plot_peaks(computed, plot, title)
