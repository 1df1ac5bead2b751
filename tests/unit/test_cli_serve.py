from pathlib import Path

import pytest

from pg_bridge.cli import main


def test_a_missing_directory_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", str(tmp_path / "nothing"), "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert f"there is no directory {tmp_path}/nothing" in said
    assert "hint: " in said


@pytest.mark.parametrize("words", [["--kv-cache-gib", "0"], ["--max-model-len", "-1"], ["--device", "tpu"]])
def test_wrong_usage_ends_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err
