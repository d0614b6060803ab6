"""Profiles: those that come with the project are valid, and what is wrong in one is told."""

from pathlib import Path

import pytest

from bench.cells.cell import plan
from bench.errors import UserError
from bench.profiles.profile import bundled_profiles, load_profile
from estimators.registry import all_estimators
from tasks.registry import all_tasks


@pytest.mark.parametrize("name", bundled_profiles())
def test_bundled_profiles_are_valid(name: str) -> None:
    tasks, estimators = [*all_tasks()], [*all_estimators()]
    profile = load_profile(name, tasks, estimators)
    for task in tasks:
        profile.evaluation_settings(task)
        for estimator in estimators:
            profile.training_settings(task, estimator)
            all_tasks()[task].Settings(**profile.task_settings(task))
            settings = profile.estimator_settings(task, estimator)
            all_estimators()[estimator].Settings(**settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[training]\nepoch = 3",
            "no setting of training of sfe on ssvae 'epoch': did you mean 'epochs'",
        ),
        ("[training]\nepochs = -3", "training of sfe on ssvae: epochs = -3"),
        ("[tasks.ssvea]", "no task of profile {path} 'ssvea': did you mean 'ssvae'?"),
        ("[tasks.ssvae.estimators.spf]", "did you mean 'sfe'?"),
        (
            "[tasks.ssvae.estimators.gumbel.training]\nepochs = 9",
            "training of gumbel on ssvae: epochs is the same for all estimators of a task: give it "
            "in [tasks.ssvae.training]",
        ),
        (
            "[tasks.ssvae.estimators.sfe.training]\nevaluate_every = 2",
            "evaluate_every is the same for all estimators",
        ),
        ("[tasks.ssvae.settings]\nlabeled = 3", "did you mean 'labelled'?"),
        (
            "[tasks.ssvae.estimators.sfe.settings]\nsamples = 0",
            "estimator sfe on ssvae: samples = 0",
        ),
        (
            "[tasks.ssvae.estimators.gumbel.settings]\ninitial = 0.2",
            "estimator gumbel on ssvae: initial = 0.2 is below minimum = 0.5, and the temperature "
            "never rises: lower the minimum as well",
        ),
        ("[tasks.ssvae.settings]\ndataset = 'mnst'", "no dataset 'mnst': did you mean 'mnist'?"),
        ("estimators = ['sf']", "no estimator of profile {path} 'sf': did you mean 'sfe'?"),
        ("[trainnig]", "did you mean 'training'?"),
        ("[tasks.ssvae.estimators.sfe.setings]", "did you mean 'settings'?"),
        ("[tasks.ssvae.trainning]", "did you mean 'training'?"),
        ("[evaluation]\nmax_summed = 200000", "less than or equal to 65536"),
        ("seeds = 1001", "seeds = 1001: input should be less than or equal to 1000"),
        ("seeds = '3'", "seeds = '3': input should be a valid integer"),
        (
            "[training]\nlearning_rate = inf",
            "training of sfe on ssvae: learning_rate = inf: give a finite number",
        ),
        ("[training]\nepochs = '3'", "epochs = '3': give it without quotes"),
        (
            "[tasks.ssvae.settings]\nhidden = '3'",
            "task ssvae: hidden = '3': give it without quotes",
        ),
        ("[tasks.ssvae.estimators.sfe.settings]\nsamples = '3'", "give it without quotes"),
        ("[training]\nepochs = true", "of sfe on ssvae: epochs = true: give no truth value"),
        ("[training]\nlearning_rate = true", "learning_rate = true: give no truth value"),
        ("[tasks.ssvae.settings]\nhidden = true", "ssvae: hidden = true: give no truth value"),
        ("[tasks]\nssvae = 3", ".tasks: ssvae = 3: give a table of settings"),
        ("[training", "is no valid TOML"),
    ],
)
def test_a_wrong_profile_is_told_in_a_line(tiny: Path, text: str, words: str) -> None:
    tiny.write_text(f'description = "wrong"\n{text}\n')
    tasks, estimators = [*all_tasks()], [*all_estimators()]
    with pytest.raises(UserError) as error:
        plan(["ssvae"], ["sfe", "gumbel"], 1, load_profile(str(tiny), tasks, estimators))
    assert words.format(path=tiny) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[tasks.ssvae.estimators.sfe.found]\ntrial = 1", "sfe.found: study is missing"),
        (b'description = "\xff"', "is no valid TOML"),
    ],
)
def test_a_broken_profile_is_told_in_a_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        load_profile(str(path), [*all_tasks()], [*all_estimators()])
    assert "\n" not in str(error.value)


def test_a_profile_may_begin_by_a_byte_order_mark(tiny: Path) -> None:
    """As some editors write it."""
    tiny.write_text(tiny.read_text(), encoding="utf-8-sig")
    assert load_profile(str(tiny), [*all_tasks()], [*all_estimators()]).seeds == 2
