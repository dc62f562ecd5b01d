"""What every experiment script shares: options to configuration, one-line errors, run folders."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import re
import sys
import tokenize
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import her_envs
from her_jax import agents, memory, metrics, relabel
from her_jax.config import Config, EnvConfig
from her_jax.errors import UserError, reason
from her_jax.runner import PLUGIN, Run
from her_jax.types import GoalEnv, GoalSpec

console = Console(highlight=False, soft_wrap=True)
status = Console(highlight=False, soft_wrap=True, stderr=True)


_PLUGIN = "her_jax_plugin"
"""Name of the module that a user's file becomes."""

_REGISTRIES = (relabel, agents, her_envs)
"""What a user's file may add to: strategies, agents, environments."""


@dataclasses.dataclass
class _Loaded:
    """The last plugin: its file, its text, and the names that it registered."""

    path: str = ""
    text: str = ""
    names: tuple[str, ...] = ()


_loaded = _Loaded()

JUDGES = tuple(name for name in her_envs.PHYSICS if name != "jax")
"""Physics that can simulate the stock model, on which success is measured."""


def set_xla_flags() -> None:
    """Turns off what slows CPU programs, unless `XLA_FLAGS` says otherwise; before JAX runs any.

    The fusion emitters of jaxlib 0.10 compute a value anew for each of its uses, so that chains of
    rotations, as in pure JAX kinematics, take exponentially long; all programs compile longer.
    Other versions may not know the flag, and XLA refuses those that it does not know.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    known = importlib.metadata.version("jaxlib").startswith("0.10.")
    if known and "xla_cpu_use_fusion_emitters" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()


def keep_programs() -> None:
    """Keeps what JAX compiles for an accelerator for later processes; call it before any compile.

    In the folder that `JAX_COMPILATION_CACHE_DIR` names, or one of the user's own: whoever can
    write there can run code here. Programs of CPUs compile fast, and JAX keeps none that calls
    native physics.
    """
    if jax.config.jax_compilation_cache_dir is None and jax.default_backend() != "cpu":  # pyright: ignore[reportAttributeAccessIssue]
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(folder) / "her-jax"))


def guarded(main: Callable[[], None]) -> None:
    """Runs a script; what a user can mend ends it with one line on standard error and status 2."""
    set_xla_flags()
    try:
        with memory.exhaustible():
            main()
    except UserError as error:
        print(f"error: {error}{_line_of_plugin(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # a compiler thread that still runs would crash an orderly exit
    except BrokenPipeError:
        try:
            os.write(sys.stdout.fileno(), b"\n")
        except BrokenPipeError:  # whatever reads it, as `head` does, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        raise  # another pipe


def command(function: Callable[..., None]) -> None:
    """Runs a script whose options are a function's arguments; see `guarded`."""

    @functools.wraps(function)
    def later(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    guarded(lambda: options(later)())


def options(kind: Callable[..., Any], **how: Any) -> Any:
    """What `tyro.cli` makes of the command line.

    Args:
      kind: a class or function of the options.
      how: further arguments of `tyro.cli`.

    Raises:
      UserError: in place of the parser's several lines.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _unwrapped(how.get("args", sys.argv[1:])):
            return tyro.cli(kind, **how)
    except SystemExit as stop:
        if not stop.code:  # after --help
            raise
    # A title, what is wrong, perhaps similar options, each with its help; rules in between.
    lines = [line.strip("│╭╮╰╯ ") for line in printed.getvalue().splitlines()[1:]]
    parts = [part.split() for part in re.split(r"(?m)^[─-]{4,}$", "\n".join(lines))]
    wrong, *more = [" ".join(words) for words in parts if words]
    similar = re.findall(r" (--[a-z0-9-]+)", more[0]) if more[0].startswith("Perhaps") else []
    meant = f"; perhaps you meant {' or '.join(dict.fromkeys(similar))}" if similar else ""
    program = how.get("prog", Path(sys.argv[0]).name)
    raise UserError(f"options: {wrong.rstrip('.')}{meant}; {program} --help lists all")


@contextlib.contextmanager
def _unwrapped(words: Sequence[str]) -> Iterator[None]:
    """A terminal so wide that errors about these words, but not help, break no line."""
    before = os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(words):
        os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def bind(config: Config, folder: Path) -> Run:
    """A run of `config` in `folder`, its environments made, to train it."""
    keep_programs()
    env, judge = make_envs(config.env)
    return Run(env, config, folder, console, judge)


def make_envs(settings: EnvConfig) -> tuple[GoalEnv, GoalEnv]:
    """The environment to train in, and the one that scores: physics `scored_on`, stock model.

    Raises:
      UserError: if a setting is unknown.
    """
    env = make_env(settings)
    judging = _judging(settings)
    return env, env if judging == settings else make_env(judging)


def _judging(settings: EnvConfig) -> EnvConfig:
    """The settings of the environment that scores.

    Raises:
      UserError: if its physics cannot, or nothing is simulated.
    """
    require_judge("scored_on", settings.scored_on)
    if settings.task not in her_envs.TASKS and settings.scored_on != EnvConfig.scored_on:
        raise UserError(
            f"scored_on: {settings.scored_on!r} has no meaning in {settings.task}; leave it out"
        )
    return dataclasses.replace(settings, physics=settings.scored_on, model="stock")


def require_judge(option: str, physics: str) -> None:
    """Refuses physics that success is not measured on.

    Raises:
      UserError: names the option that asked for it.
    """
    if physics not in JUDGES:
        raise UserError(f"{option}: {physics!r} cannot score; choose one of {', '.join(JUDGES)}")


def make_env(settings: EnvConfig) -> GoalEnv:
    """The environment that the settings name.

    Raises:
      UserError: if a setting is unknown, or a task that nobody has registered.
    """
    if settings.task not in her_envs.names():
        raise UserError(
            f"environment: {settings.task!r} is unknown; choose one of "
            f"{', '.join(her_envs.names())}, or open a run of your own task from Python "
            "(docs/python.md)"
        )
    return her_envs.make(
        settings.task,
        physics=settings.physics,
        model=settings.model,
        nconmax=settings.nconmax,
        njmax=settings.njmax,
        graph_mode=settings.graph_mode,
        num_threads=settings.num_threads,
        tolerance=settings.tolerance,
        reward=settings.reward,
        goal=settings.goal,
        action_repeat=settings.action_repeat,
        n=settings.n,
    )


def read_config(folder: Path) -> Config:
    """The settings of the run that lives in `folder`.

    Raises:
      UserError: if it is not a run folder.
    """
    require_folder(folder)
    values = metrics.read_json(folder / metrics.CONFIG)
    if (folder / PLUGIN).is_file():
        load_plugin(str(folder / PLUGIN))
    else:
        forget_plugin()
    return Config.from_dict(values)


def require_folder(folder: Path) -> None:
    """Refuses the name of a run that is none.

    Raises:
      UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"run: {folder} is no folder; give one that train.py made")


def load_plugin(path: str) -> None:
    """Runs a user's Python file, so that what it registers is known.

    What an earlier file registered is forgotten: two versions of one may use the same names. The
    file whose work is known runs no second time, for that would make other classes.

    Raises:
      UserError: if there is no such file, or it fails.
    """
    if not Path(path).is_file():
        raise UserError(f"plugin: {path} is no file; name one that registers something")
    try:
        with tokenize.open(path) as file:
            text = file.read()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"plugin: {path} cannot be read ({reason(error)}); mend it") from None
    if _loaded.text == text and _loaded.names and set(_loaded.names) <= set(registered()):
        return
    forget_plugin()
    _loaded.path, before = path, registered()
    plugin = types.ModuleType(_PLUGIN)
    plugin.__file__ = path  # where help finds the descriptions of settings
    sys.modules[_PLUGIN] = plugin
    try:
        exec(compile(text, path, "exec"), vars(plugin))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file may raise
        what = f"{type(error).__name__}: {reason(error)}"
        raise UserError(f"plugin: {path} fails: {what}; mend it") from error
    else:
        _loaded.text = text
    finally:
        _loaded.names = tuple(name for name in registered() if name not in before)


def forget_plugin() -> None:
    """Forgets what the last plugin registered; what a program registered itself stays."""
    for registry in _REGISTRIES:
        registry.forget(_loaded.names)
    _loaded.path, _loaded.text, _loaded.names = "", "", ()


def _line_of_plugin(error: BaseException | None) -> str:
    """Where in the plugin the first error was raised that led to this one; "" if nowhere."""
    where = ""
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == _loaded.path:
                where = f" ({frame.filename}, line {frame.lineno})"
        error = error.__cause__
    return where


def registered() -> tuple[str, ...]:
    """Names of what is registered, by plugins or otherwise."""
    return tuple(name for registry in _REGISTRIES for name in registry.registered())


def open_run(folder: Path, scored_on: str | None = None) -> Run:
    """The run that lives in `folder`, to look at: with the environment that scores alone.

    So it opens where the physics that it was trained on is not installed.

    Args:
      folder: of the run.
      scored_on: physics to measure success on; the run's own by default.

    Raises:
      UserError: if it is not a run folder.
    """
    config = read_config(folder)
    if scored_on is not None:
        env = dataclasses.replace(config.env, scored_on=scored_on)
        config = dataclasses.replace(config, env=env)
    keep_programs()
    judge = make_env(_judging(config.env))
    return Run(judge, config, folder, console, judge)


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Names the option whose file could not be written.

    Raises:
      UserError: in place of any `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{option}: {path} cannot be written ({reason}); name another") from None


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what takes long, in a terminal beside a clock that runs while it does."""
    if not status.is_terminal:
        status.print(f"{what} ...")
        yield
        return
    columns = TextColumn("{task.description} ..."), SpinnerColumn(), TimeElapsedColumn()
    with Progress(*columns, console=status, redirect_stdout=False) as shown:
        shown.add_task(what, total=None)
        yield


def headline(task: str, success: float, spec: GoalSpec, goals: int, floor: float) -> str:
    """A success with what it means: where, how near, on how many goals, beside doing nothing."""
    return (
        f"{task}: success {success:.3f} {spec.when} on {goals:,} {spec.origin} goals within "
        f"{spec.tolerance} {spec.units} (doing nothing: {floor:.3f})"
    )


def report(values: dict[str, Any]) -> None:
    """Prints a dictionary as JSON."""
    console.print(json.dumps(values, indent=2), markup=False)
