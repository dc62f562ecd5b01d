"""Files of a run folder: damaged ones get one line, and nothing that is left in them is lost."""

from __future__ import annotations

import json

import pytest

from her_jax import metrics
from her_jax.errors import UserError

LINES = [json.dumps({"epoch": i, "env_steps": 10 * i}) for i in (1, 2, 3)]


@pytest.mark.parametrize("cut", ["", '{"epo', '{"epoch": 4, "env_st', "\udcff"])
def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path, cut):
    text = "\n".join([*LINES, cut])
    (tmp_path / metrics.METRICS).write_text(text, errors="surrogateescape")
    assert [record["epoch"] for record in metrics.read(tmp_path)] == [1, 2, 3]
    metrics.rewind(tmp_path, 2)
    assert (tmp_path / metrics.METRICS).read_text().splitlines() == LINES[:2]


@pytest.mark.parametrize(
    "damaged", ['{"epoch": 2, "env', '{"epoch": 2, broken}', "[1, 2]}", "{}", LINES[0], LINES[2]]
)
@pytest.mark.parametrize("after", [[], LINES[2:]])
def test_any_other_damaged_line_is_named_and_the_file_stays(tmp_path, damaged, after):
    path = tmp_path / metrics.METRICS
    path.write_text("\n".join([LINES[0], damaged, *after]) + "\n")
    before = path.read_bytes()
    for call in (metrics.read, lambda folder: metrics.rewind(folder, 1)):
        with pytest.raises(UserError, match=r"metrics.jsonl, line 2: .*; restore it") as error:
            call(tmp_path)
        assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_checkpoint_whose_lines_are_lost_is_not_gone_on_from(tmp_path):
    path = tmp_path / metrics.METRICS
    path.write_text(LINES[0] + "\n")
    with pytest.raises(UserError, match=r"lacks the lines of epochs 2 to 3, .*; restore it"):
        metrics.rewind(tmp_path, 3)
    assert path.read_text() == LINES[0] + "\n"


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    (tmp_path / metrics.CONFIG).mkdir()
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        metrics.read_json(tmp_path / metrics.CONFIG)
    (tmp_path / metrics.METRICS).mkdir()
    with pytest.raises(UserError, match=r"metrics.jsonl cannot be read"):
        metrics.read(tmp_path)
    with pytest.raises(OSError):
        metrics.write_text(tmp_path / metrics.CONFIG, "text")
    assert not list(tmp_path.glob("*.partial"))
