import inspect
from datetime import date

import pytest

from varshift_cli.cli.app import program_for
from varshift_cli.config import COMMAND_LINE_ONLY, Config, load_config
from varshift_cli.errors import ConfigError
from varshift_cli.records import LayerRule, Policy, Suppression


@pytest.fixture
def written(tmp_path):
    """Write a settings file and read the folder's settings."""

    def write(text, name="varshift.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load_config(tmp_path)

    return write


def test_no_file(tmp_path):
    """Without a file there are no settings."""
    assert load_config(tmp_path) == Config()


def test_every_setting(written):
    """Every option that a file may set is read, with - or with _, and keeps its type."""
    config = written(
        """
        arch = "model.py:build"
        arch-arg = { p = 0.5, name = "a b", deep = [1, 2], table = "@args.yaml", on = true }
        key = "state.ema"
        data = "calib.npz"
        data_arg = ["split=train"]
        train-data = "data.py:train"
        input = "x"
        label = "y"
        forward = "f.py:f"
        noise = ["m.py:N", "pkg.mod:M"]
        batch_size = 32
        train-batch-size = 8
        samples = 500
        seed = 7
        device = "cpu"
        holdout = "held.npz"
        max-shift = 2
        format = "json"
        order = "network"
        all = true
        channels = true
        quiet = false
        max-changed-predictions = 0.01
        min_accuracy = 0.97
        min-r2 = 0.5
        min-metric = -3
        baseline = "base.json"

        [layers]
        "head.*" = { max-shift = 1.5 }
        "*.bn1" = 2

        [[suppress]]
        layers = ["aux.*", "old.*"]
        reason = "cut off"
        expires = 2027-01-31

        [[suppress]]
        code = "VS210"
        reason = "known"
        """
    )

    assert config == Config(
        source="./varshift.toml",
        arch="model.py:build",
        arch_arg=("p=0.5", 'name="a b"', "deep=[1, 2]", "table=@args.yaml", "on=true"),
        key="state.ema",
        data="calib.npz",
        data_arg=("split=train",),
        train_data="data.py:train",
        input="x",
        label="y",
        forward="f.py:f",
        noise=("m.py:N", "pkg.mod:M"),
        batch_size=32,
        train_batch_size=8,
        samples=500,
        seed=7,
        device="cpu",
        holdout="held.npz",
        max_shift=2.0,
        format="json",
        order="network",
        all=True,
        channels=True,
        quiet=False,
        max_changed_predictions=0.01,
        min_accuracy=0.97,
        min_r2=0.5,
        min_metric=-3.0,
        baseline="base.json",
        layers=(LayerRule("head.*", 1.5), LayerRule("*.bn1", 2.0)),
        suppress=(
            Suppression("cut off", "aux.*", None, date(2027, 1, 31)),
            Suppression("cut off", "old.*", None, date(2027, 1, 31)),
            Suppression("known", None, "VS210"),
        ),
    )
    assert config.policy == Policy(2.0, config.layers, 0.01, 0.97, 0.5, -3.0, config.suppress)


def test_pyproject(written):
    """The table [tool.varshift] of pyproject.toml serves as well, and is named as the source."""
    config = written('[tool.varshift]\narch = "m.py:f"\n[tool.other]\nx = 1\n', "pyproject.toml")

    assert config == Config(source="./pyproject.toml", arch="m.py:f")


def test_pyproject_of_others(written):
    """A pyproject.toml that does not mention varshift is none of our business."""
    assert written("[tool.other]\nx = 1\n", "pyproject.toml") == Config()


def test_own_file_wins(written):
    """Where both exist varshift.toml is taken, and the other is said to be ignored."""
    written('[tool.varshift]\narch = "theirs.py:f"\n', "pyproject.toml")
    config = written('arch = "mine.py:f"\n')

    assert config.arch == "mine.py:f"
    assert config.ignored == "[tool.varshift] in ./pyproject.toml"


def test_only_the_given_folder(tmp_path, written):
    """Neither parent folders nor subfolders are looked at."""
    written('arch = "m.py:f"\n')
    (tmp_path / "below").mkdir()

    assert load_config(tmp_path / "below") == Config()


def test_current_folder_by_default(tmp_path, written, monkeypatch):
    """The current folder is the one that counts."""
    written("seed = 3\n")
    monkeypatch.chdir(tmp_path)

    assert load_config().seed == 3


def test_typo(written):
    """An unknown key is refused, with the nearest one."""
    with pytest.raises(ConfigError) as caught:
        written("max_shfit = 1.25\n")

    assert caught.value.message == "./varshift.toml: there is no setting 'max_shfit'"
    assert caught.value.hint == "did you mean max-shift?"
    assert caught.value.exit_code == 2


def test_unknown_key_like_no_other(written):
    """An unknown key that resembles none gets the list of those there are."""
    with pytest.raises(ConfigError) as caught:
        written("zzz = 1\n")

    assert "arch, arch-arg, key" in caught.value.hint


@pytest.mark.parametrize("key", ["allow-pickle", "allow_pickle", "overwrite", "output", "force"])
def test_command_line_only(written, key):
    """What opens, writes or overrides something is accepted on the command line alone."""
    with pytest.raises(ConfigError, match=f"{key} is not accepted from a file"):
        written(f"{key} = true\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("arch = 3", "arch must be a string, not integer 3"),
        ('arch = ""', "arch must be a string, not string ''"),
        ('samples = "many"', "samples must be a whole number, not string 'many'"),
        ("noise = 1", "noise must be a string or a list of strings, not integer 1"),
        ("samples = true", "samples must be a whole number, not boolean True"),
        ("samples = 1.5", "samples must be a whole number, not float 1.5"),
        ("max-shift = true", "max-shift must be a number, not boolean True"),
        ("all = 1", "all must be true or false, not integer 1"),
        ('arch-arg = ["p"]', "arch-arg must be a table"),
        ('arch-arg = "p=1"', "arch-arg must be a table"),
        ("arch-arg = { d = 2020-01-01 }", "arch-arg must be numbers, strings"),
        ("arch-arg = { d = nan }", "arch-arg must be numbers, strings"),
        ("seed = 1\nseed = 2", "not valid TOML"),
        ("batch-size = 1\nbatch_size = 2", "batch-size is there twice"),
    ],
)
def test_wrong_values(written, line, message):
    """A value of the wrong type is refused, saying which, where, and what was expected."""
    with pytest.raises(ConfigError) as caught:
        written(line + "\n")

    assert caught.value.message.startswith("./varshift.toml")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("layers = 3", "layers must be a table, not integer 3", None),
        ('[layers]\n"a.*" = "x"', "layers.'a.*' must be a number, not string 'x'", None),
        ('[layers]\n"a.*" = { shift = 2 }', "must be { max-shift = X }, but has shift", None),
        ("[layers]\nhead.bn = 2", "but has bn", '"head.*" = { max-shift = 1.5 }'),
        ("[layers]\nmax-shift = 2", "max-shift is a setting", "above [layers]"),
        ("suppress = 1", "suppress must be a list of tables", None),
        ("suppress = [1]", "suppress[0] must be a table, not integer 1", None),
        ('[[suppress]]\nlayers = "a"', "suppress[0] has no reason", "say why"),
        ('[[suppress]]\nlayers = "a"\nreason = ""', "suppress[0].reason must be a string", None),
        ('[[suppress]]\nreason = "x"', "neither layers nor code", None),
        ('[[suppress]]\nlayer = "a"', "no setting 'layer'", "did you mean layers?"),
        ('[[suppress]]\nlayers = []\nreason = "x"', "a string or a list of strings", None),
        (
            '[[suppress]]\nlayers = "a"\nreason = "x"\nexpires = "soon"',
            "suppress[0].expires must be a day such as 2027-01-31, not string 'soon'",
            None,
        ),
        ('min-accuracy = "0.9"', "min-accuracy must be a number", None),
    ],
)
def test_wrong_policies(written, text, message, hint):
    """A gate's settings are checked as strictly, and say where it is wrong and what to write."""
    with pytest.raises(ConfigError) as caught:
        written(text + "\n")

    assert message in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_an_expiry_may_be_text(written):
    """A day is a day, quoted or not."""
    text = '[[suppress]]\ncode = "VS101"\nreason = "x"\nexpires = "2027-01-31"\n'

    assert written(text).suppress[0].expires == date(2027, 1, 31)


def test_every_option_is_a_setting(written):
    """Every option of every command can stand in the file, or is kept out of files for safety."""
    commands = [each.callback for each in program_for(()).registered_commands]
    parameters = [p for each in commands for p in inspect.signature(each).parameters.values()]
    options = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    kept_out = {name.replace("-", "_") for name in COMMAND_LINE_ONLY}

    assert len(options) > 20
    assert options - kept_out - set(Config.__dataclass_fields__) == set()
    for name in options - kept_out:
        with pytest.raises(ConfigError, match=f"{name} must be "):
            written(f"{name} = 2027-01-31\n")


def test_not_a_table(written):
    """A [tool] entry that is no table is refused."""
    with pytest.raises(ConfigError, match=r"tool\.varshift must be a table, not integer"):
        written("[tool]\nvarshift = 1\n", "pyproject.toml")


def test_not_text(tmp_path):
    """A file that is not UTF-8 text is refused."""
    (tmp_path / "varshift.toml").write_bytes(b"arch = '\xff'")

    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
