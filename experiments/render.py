"""Films a trained policy on held-out goals: `python experiments/render.py RUN [options]`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import tyro

import her_envs.render
import launch
from her_envs import FetchEnv
from her_jax import goal_set, metrics
from her_jax.errors import UserError, reason
from her_jax.runner import Run
from her_jax.types import GoalEnv

_PALETTE = "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none"
_ENCODINGS: dict[str, dict[str, Any]] = {
    ".mp4": {},
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "output_params": ["-filter_complex", _PALETTE, "-loop", "0"],
    },
}
"""Ending of a video's name -> how it is encoded, as `imageio_ffmpeg.write_frames` takes it."""


def main(
    run: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    episodes: int = 5,
    width: int = 320,
    height: int = 240,
) -> None:
    """Record a video of the latest checkpoint.

    Args:
      run: Run folder.
      out: Video to write, .mp4 or .gif; default RUN/rollout.mp4.
      episodes: How many of the held-out goals, one after the other.
      width: Pixels, a multiple of 16.
      height: Pixels, a multiple of 16.
    """
    where = out or run / metrics.VIDEO
    opened = launch.open_run(run)
    _, state = opened.restore_policy()
    record(opened, state, where, episodes=episodes, width=width, height=height)
    launch.console.print(f"wrote {where}")


def record(
    run: Run,
    state: Any,
    out: Path,
    *,
    episodes: int = 2,
    width: int = 320,
    height: int = 240,
) -> None:
    """Films the first held-out episodes, in real time.

    Args:
      run: whose environment and policy.
      state: its `TrainState`, or what acts of it.
      out: MP4 or GIF file to write.
      episodes: how many.
      width: pixels, a multiple of 16.
      height: pixels, a multiple of 16.

    Raises:
      UserError: if the size does not suit the codec, there is nothing to film, or the encoder
        fails; a video that was there before stays.
    """
    if out.suffix not in _ENCODINGS:
        raise UserError(f"out: {out} is no {' or '.join(_ENCODINGS)} file")
    for name, value in (("width", width), ("height", height)):
        if value <= 0 or value % 16:
            raise UserError(f"{name}: {value} is not a positive multiple of 16; try 320 x 240")
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try 5")
    env = scene(run.judge)
    if env is None:
        raise UserError(f"video: {run.judge.name} has no scene to film")
    launch.status.print(f"compiling, then filming {episodes} episodes ...")
    film = jax.jit(functools.partial(_states, run, state))
    partial = out.with_name("partial-" + out.name)
    with launch.writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
    fps = 1 / env.seconds_per_action / run.judge.steps_per_action
    with _ffmpeg(partial, width, height, fps) as send:
        for start in _each(goal_set.standard(env, episodes).starts):
            for frame in her_envs.render.frames(env, film(start), width=width, height=height):
                send(np.ascontiguousarray(frame))
    with launch.writing("out", out):
        partial.replace(out)


def scene(env: GoalEnv) -> FetchEnv | None:
    """The environment that can be filmed, if there is one."""
    inner = env.env if isinstance(env, her_envs.Repeated) else env
    return inner if isinstance(inner, FetchEnv) else None


@contextmanager
def _ffmpeg(out: Path, width: int, height: int, fps: float) -> Iterator[Callable[[Any], None]]:
    """What takes frames and encodes them; nothing is left of `out` if something fails.

    Raises:
      UserError: if the encoder does not start or take a frame, or the video lacks some in the end.
    """
    writer = imageio_ffmpeg.write_frames(
        str(out),
        (width, height),
        fps=fps,  # pyright: ignore[reportArgumentType]  # it takes halves, too
        macro_block_size=16,
        **_ENCODINGS[out.suffix],
        ffmpeg_log_level="error",
    )

    sent = 0

    def send(frame: Any) -> None:
        nonlocal sent
        with _encoding():
            writer.send(frame)
        sent += frame is not None

    try:
        with warnings.catch_warnings():  # JAX warns of any fork; these children only run ffmpeg
            warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
            send(None)
            yield send
            writer.close()  # which does not say whether all was written
            with _encoding():
                written, _ = imageio_ffmpeg.count_frames_and_secs(str(out))
                if (written or 0) < sent:
                    raise OSError(f"{written} of {sent} frames are in the file")
    except BaseException:
        writer.close()
        out.unlink(missing_ok=True)
        raise


@contextmanager
def _encoding() -> Iterator[None]:
    """Names the encoder in what it raises.

    Raises:
      UserError: in place of its own errors.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"video: the encoder fails ({reason(error)}); see that ffmpeg is there, and room for "
            "the file"
        ) from error


def _each(starts: Any) -> Iterator[Any]:
    """Single starts of a set."""
    return map(type(starts)._make, zip(*starts, strict=True))


def _states(run: Run, state: Any, start: Any) -> Any:
    """Environment states [T+1] of the greedy policy from a held-out start."""
    first = run.judge.begin(start)

    def step(env_state, _):
        env_state = run.judge.step(env_state, run.act(state, env_state.obs))
        return env_state, env_state

    _, later = jax.lax.scan(step, first, length=run.judge.horizon)
    return jax.tree.map(lambda x, rest: jnp.concatenate([x[None], rest]), first, later)


if __name__ == "__main__":
    launch.command(main)
