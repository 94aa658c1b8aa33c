from pathlib import Path

import pytest
from pydantic import SecretStr

from wyloop.platform.settings import MASK, SettingsError, all_settings

SECRET = "mongodb://anna:hunter2@db.example.org/?replicaSet=rs0"  # noqa: S105 - made up


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_need_no_file(tmp_path: Path) -> None:
    settings = all_settings()
    assert settings.config is None
    assert settings.data_folder == tmp_path / "data"
    assert settings.stores.uri is None
    assert settings.platform.mongod_cache_gb == 0.25
    assert {row.source for row in settings.rows() if row.name != "data_folder"} == {"default"}


def test_the_default_data_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WYLOOP_PLATFORM_DATA_FOLDER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert all_settings().data_folder == tmp_path / "share" / "wyloop"


def test_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f'[platform]\nn_workers = 7\nmongod_port = 4000\n[stores]\nuri = "{SECRET}"\ndatabase = "mine"\n'
    path = write(tmp_path / "wyloop.toml", text + "[flows]\nlease_seconds = 5\n")
    monkeypatch.setenv("WYLOOP_PLATFORM_N_WORKERS", "3")
    settings = all_settings()
    assert settings.config == path
    assert (settings.platform.n_workers, settings.platform.mongod_port, settings.flows.lease_seconds) == (3, 4000, 5.0)
    assert settings.stores.uri == SecretStr(SECRET)
    rows = {row.name: row for row in settings.rows()}
    assert (rows["n_workers"].source, rows["mongod_port"].source) == ("environment", str(path))
    assert rows["uri"].value == MASK
    assert "hunter2" not in repr(settings)
    assert all_settings(write(tmp_path / "other.toml", "[stores]\ndatabase = 'x'")).stores.database == "x"


def test_another_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "wyloop.toml", "[platform]\nkeep = true\n[flows]\nlaunchpad_database = 'fw'\n")
    first = all_settings().with_uri(SECRET)
    environment = first.environment()
    assert environment["WYLOOP_STORES_URI"] == SECRET
    (tmp_path / "wyloop.toml").unlink()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    second = all_settings()
    assert (second.platform, second.stores, second.flows) == (first.platform, first.stores, first.flows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[platform]\nn_worker = 1", "unknown key 'n_worker' in .platform.; expected one of data_folder, "),
        ("[platform]\nn_workers = 'many'", r"\[platform\] n_workers = 'many': .*integer.*correct it"),
        ("[platform]\nmongod_port = 70000", r"\[platform\] mongod_port = 70000: .*less than or equal to 65535"),
        ("[stores]\nuri = 5", rf"\[stores\] uri = {MASK.replace('*', '.')}: "),
        ("[database]\nuri = 'x'", r"unknown entry 'database'; expected the tables \[platform\], \[stores\], \[flows\]"),
        ("platform = 1", "unknown entry 'platform'"),
        ("[platform\n", "is not valid TOML: .*line 1"),
    ],
)
def test_a_broken_file_names_the_key(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        all_settings(write(tmp_path / "broken.toml", text))
    assert "\n" not in str(caught.value)
    assert "broken.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't read the settings file .*none\.toml: No such file"):
        all_settings(tmp_path / "none.toml")


def test_a_broken_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WYLOOP_STORES_TIMEOUT_MS", "soon")
    with pytest.raises(SettingsError, match="^WYLOOP_STORES_TIMEOUT_MS = 'soon': .*integer"):
        all_settings()
    monkeypatch.setenv("WYLOOP_STORES_TIMEOUT_MS", "500")
    monkeypatch.setenv("WYLOOP_STORES_URL", "mongodb://localhost")
    with pytest.raises(SettingsError, match=r"unknown variable WYLOOP_STORES_URL .*WYLOOP_STORES_URI"):
        all_settings()
