"""The check before a real run. The machine (disk, GPUs, token, key) is stood in for."""

import dataclasses

import pytest
from whole_paper import OPTIONAL, PAPER

from introspect_utils.runs import preflight, run_all
from introspect_utils.runs.cost import Estimate, estimate
from introspect_utils.runs.options import chosen_parts, snakemake_options
from introspect_utils.runs.plan import plan
from introspect_utils.runs.preflight import missing, shown, to_download, total
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

RUNS = plan(PAPER)


@pytest.fixture
def machine(monkeypatch):
    """Sets what the probes find; at first all that the paper could want."""

    def has(disk=1e15, gpus=(700e9,) * 4, token=True, key="x", cached=(), memory=2e12, archives=()):
        monkeypatch.setattr(preflight, "free_disk", lambda: disk)
        monkeypatch.setattr(preflight, "gpu_memory", lambda: list(gpus))
        monkeypatch.setattr(preflight, "memory", lambda: memory)
        monkeypatch.setattr(preflight, "has_hub_token", lambda: token)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        monkeypatch.setattr(preflight, "ARCHIVES", archives)
        monkeypatch.setattr(preflight, "is_cached", lambda name: name in cached)

    has()
    return has


def named(*words):
    return [run for run in RUNS if any(word in run.id for word in words)]


def test_everything_that_is_missing_is_said_at_once(machine):
    assert missing(PAPER, RUNS) == []
    machine(disk=1e9, gpus=(), token=False, key="", memory=1e9)
    lines = missing(PAPER, RUNS)
    heads = [line.split(":")[0] for line in lines]
    assert heads == ["disk", "GPUs", "memory", "hub token", "OpenAI key"]
    assert "GPUs: none, and" in lines[1] and "judge: embedding" in lines[4]
    assert "meta-llama/Llama-3.1-70B" in lines[3] and "Qwen" not in lines[3]
    for name in ("smoke", "mini", "small"):  # they ask the machine for nothing
        assert missing(load_profile(name), plan(load_profile(name))) == []


def test_the_disk_must_hold_what_stays_the_downloads_and_the_most_that_one_run_holds_besides(
    machine,
):
    two = named("ablation-llama-3.1-8b-instruct-self")  # trained in full, and untrained
    n = 8.03e9
    needed = 8 * n + 16 * n + 2 * n  # what stays; while it trains; the download
    machine(disk=needed)
    assert missing(PAPER, two) == []
    machine(disk=needed - 1)
    [line] = missing(PAPER, two)
    assert line.startswith("disk: about 209 GB are needed, 209 GB are free")
    assert "most for ablation-llama-3.1-8b-instruct-self-full-n12642-seed42, 64 GB" in line
    machine(disk=needed - 2 * n, cached=("meta-llama/Llama-3.1-8B-Instruct",))
    assert missing(PAPER, two) == []


def test_a_run_must_fit_the_largest_gpu_and_have_as_many_as_it_has_processes(machine):
    both = named("patching-llama", "ablation-qwen3-8b-self-full", "self-lora")
    machine(gpus=(40e9, 80e9))
    assert missing(PAPER, both) == []
    machine(gpus=(64e9, 64e9))
    [line] = missing(PAPER, both)
    assert line.startswith("GPUs: 2 of 64 GB, and 1 runs need more, ablation-qwen3-8b-self")
    machine(gpus=(80e9,))
    [line] = missing(PAPER, named("ablation-qwen3-8b-self-full", "self-lora"))
    assert "1 runs need more" in line and "most: 2 of 66 GB" in line
    assert missing(PAPER, named("self-lora")) == []
    machine(gpus=())
    assert missing(PAPER, both, here=False) == []  # a cluster's machines have the GPUs


def test_parts_that_do_not_fit_are_named_and_can_be_left_out(machine, monkeypatch):
    machine(gpus=(85e9, 85e9))
    [line] = missing(PAPER, RUNS)
    assert f"leave out what does not fit with --without {OPTIONAL}" in line
    monkeypatch.setenv("INTROSPECT_WITH", OPTIONAL)
    monkeypatch.setenv("INTROSPECT_WITHOUT", "")
    arguments = ["--with", *OPTIONAL.split(), "--without", *OPTIONAL.split(), "--jobs", "1"]
    less, extra = chosen_parts(PAPER, arguments)
    assert extra == ["--jobs", "1"] and load_profile("paper") == less  # for every process
    assert missing(less, plan(less)) == []
    assert not [run.id for run in plan(less) if "gemma" in run.id or "70b" in run.id]
    with pytest.raises(UserError, match="has no part 'paper/qwenn'; did you mean 'paper/qwen'"):
        chosen_parts(PAPER, ["--without", "paper/qwenn"])


def test_optional_parts_are_asked_for_and_take_the_place_of_their_namesakes(machine, monkeypatch):
    monkeypatch.setenv("INTROSPECT_WITH", "")
    monkeypatch.setenv("INTROSPECT_WITHOUT", "")
    usual = load_profile("paper")
    assert not [part.source for part in usual.parts if "optional" in part.source]
    made = [estimate(usual, run) for run in plan(usual)]
    assert 200 < sum(each.hours for each in made if each) < 300
    whole, extra = chosen_parts(usual, ["--with", *OPTIONAL.split()])
    assert whole == PAPER and load_profile("paper") == PAPER and extra == []
    longer, _ = chosen_parts(usual, ["--with", "paper/optional/qwen-features"])
    sources = [part.source for part in longer.parts]
    assert "paper/optional/qwen-features" in sources and "paper/qwen-features" not in sources
    assert [run.id for run in plan(longer)] == [run.id for run in plan(usual)]
    name = "features-llama-3.1-8b-qwen3-8b-full-n7936-seed42"
    [run] = [run for run in plan(longer) if run.id == name]
    assert run.settings["training"]["epochs"] == 100
    message = "no optional part 'paper/qwen-features'; did you mean 'paper/optional/qwen-features'"
    with pytest.raises(UserError, match=message):
        chosen_parts(usual, ["--with", "paper/qwen-features"])
    with pytest.raises(UserError, match="profile smoke has no optional part 'x'; it has none"):
        chosen_parts(load_profile("smoke"), ["--with", "x"])


def test_a_dry_run_plans_for_gpus_that_are_described(machine, monkeypatch, capsys):
    machine(disk=0, gpus=(), token=False, key="", memory=0)
    monkeypatch.setenv("INTROSPECT_WITH", "")
    monkeypatch.setenv("INTROSPECT_WITHOUT", "")
    last = []
    for extra in (["--gpus", "2x80"], ["--with", *OPTIONAL.split(), "--gpus", "2x80"]):
        monkeypatch.setattr("sys.argv", ["run_all", "paper", "--dry-run", *extra])
        assert run_all.main() == 0
        last += capsys.readouterr().out.splitlines()[-1:]
    assert last[0] == "GPUs: enough for every run"
    assert last[1].startswith("GPUs: 2 of 85 GB, and ") and OPTIONAL in last[1]
    for form, message in (("80", "number x GB is expected"), ("2x80", "use it with --dry-run")):
        monkeypatch.setattr("sys.argv", ["run_all", "smoke", "--gpus", form])
        with pytest.raises(UserError, match=message):
            run_all.main()


def test_the_machines_memory_is_looked_at_too(machine):
    machine(memory=100e9)
    [line] = missing(PAPER, named("ablation-qwen3-8b-self-full"))
    assert line.startswith("memory: 100 GB are here, and ablation-qwen3-8b-self-full")


def test_a_token_is_needed_for_gated_models_that_are_not_here(machine):
    machine(token=False)
    assert missing(PAPER, named("patching-qwen3-8b-self")) == []
    [line] = missing(PAPER, named("patching-llama-3.1-8b-self"))
    assert line.startswith("hub token: meta-llama/Llama-3.1-8B are gated")
    machine(token=False, cached=("meta-llama/Llama-3.1-8B",))
    assert missing(PAPER, named("patching-llama-3.1-8b-self")) == []


def test_a_key_is_needed_for_descriptions_and_for_the_judge_whatever_the_models(machine):
    machine(key="")
    [line] = missing(PAPER, named("features-llama-3.1-8b-self-lora"))
    assert line.startswith("OpenAI key: 1 runs")
    assert missing(PAPER, named("patching", "ablation")) == []
    smoke = load_profile("smoke")
    judged = dataclasses.replace(
        smoke, features=dataclasses.replace(smoke.features, judge="openai")
    )
    [line] = missing(judged, plan(judged))
    assert "runs ask a chat model, features-tiny-llama-self" in line


def test_what_is_here_is_not_downloaded(machine):
    machine(cached=("Qwen/Qwen3-8B",))
    both = named("patching-llama-3.1-8b-self", "patching-llama-3.1-8b-qwen3-8b")
    assert to_download(PAPER, both) == {"meta-llama/Llama-3.1-8B": 2 * 8.03e9}


def test_the_probes_find_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "ROOT", tmp_path / "not" / "there")
    assert preflight.free_disk() > 0
    assert all(memory > 1e9 for memory in preflight.gpu_memory())
    monkeypatch.setenv("HF_TOKEN", "x")
    assert preflight.has_hub_token() and not preflight.is_cached("owner/no-such-model")


def test_an_estimate_is_a_line():
    cost = Estimate(hours=1234.56, memory=80e9, disk=5e12, dollars=3.456)
    line = "about 1,234.6 H100 hours, 80 GB of GPU memory, 5,000 GB of disk, $3.46"
    assert shown(cost, 0) == line
    line = "about 1.0 H100 hours, 2 GB of GPU memory on each of 2, 0 GB of disk, 3 GB to download"
    assert shown(Estimate(1, 2e9, gpus=2), 3e9) == line
    assert "price is not known" in shown(Estimate(dollars=float("nan")), 0)
    both = Estimate(1235.56, 90e9, 5e12 + 1, dollars=pytest.approx(4.456))
    assert total([cost, Estimate(1, 90e9, 1, dollars=1)]) == both


def test_a_real_run_stops_before_it_starts(machine):
    machine(gpus=(80e9, 80e9), key="")
    reasons = {run.id: "not run yet" for run in RUNS}

    def start(*extra):
        run_all.run(PAPER, reasons, snakemake_options(list(extra)), list(extra))

    message = "profile paper cannot be run here:\n  GPUs: .*\n  OpenAI key: "
    with pytest.raises(UserError, match=message):
        start()
    machine(gpus=(80e9, 80e9), key="", token=False)
    with pytest.raises(UserError, match="cannot be run here:\n  hub token: [^\n]*$"):
        start("--until", "patching-llama-3.1-8b-self-full-n13454-seed42")


def test_snakemakes_options_choose_the_runs_that_start():
    reasons = {run.id: "not run yet" for run in RUNS}
    data, fits = "data-patching-llama-3.1-8b", "patching-llama-3.1-8b-self-full-n13454-seed42"

    def ids(*extra):
        options = snakemake_options(list(extra))
        return [run.id for run in run_all.starting(reasons, options, RUNS)]

    assert ids() == [run.id for run in RUNS]
    assert ids("--until", fits) == ids(fits) == [data, fits]
    left = ids("--omit-from", data)
    assert "data-ablation-qwen3-8b" in left
    assert not {data, fits, "tables"} & set(left)


def test_a_part_is_not_run_alone_and_an_unknown_run_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run_all", "paper/qwen"])
    with pytest.raises(UserError, match="paper/qwen is a part of the profile paper: run that"):
        run_all.main()
    monkeypatch.setattr("sys.argv", ["run_all", "smoke", "--forcerun", "table"])
    with pytest.raises(UserError, match="smoke has no run 'table'; did you mean 'tables'?"):
        run_all.main()
