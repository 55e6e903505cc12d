import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from introspect_utils.data import mmlu
from introspect_utils.data.mmlu import MultipleChoice, load_mmlu, multiple_choice, select, split
from introspect_utils.settings.errors import UserError

ROW = {
    "question": "Which is prime? ",
    "subject": "number_theory",
    "choices": ["4", "6", "7", "8"],
    "answer": 2,
}


def some(texts, subject="anatomy"):
    return [
        MultipleChoice(subject, text, ("a", "b", "c", "d"), 0, index)
        for index, text in enumerate(texts)
    ]


def test_a_question_as_the_target_reads_it():
    question = multiple_choice(ROW, "row 0", 5)
    assert question == MultipleChoice(
        "number_theory", "Which is prime?", ("4", "6", "7", "8"), 2, 5
    )
    assert question.text == "Which is prime?\nA. 4\nB. 6\nC. 7\nD. 8"
    assert question.words == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"choices": ["4", "6", "7"]},
            r"mmlu, row 7: choices must be four texts, got \['4', '6', '7'\]",
        ),
        ({"choices": "4678"}, "mmlu, row 7: choices must be four texts, got '4678'"),
        ({"choices": ["4", "6", "7", None]}, "mmlu, row 7: choices must be four texts"),
        (
            {"choices": None},
            "mmlu, row 7: no choices; a row needs question, subject, four choices and answer",
        ),
        ({"answer": 4}, r"mmlu, row 7: answer must be 0, 1, 2 or 3 \(A to D\), got 4"),
        ({"answer": "E"}, "row 7: answer must be 0, 1, 2 or 3 .* got 'E'"),
        ({"answer": True}, "row 7: answer must be 0, 1, 2 or 3 .* got True"),
        ({"question": None, "answer": None}, "mmlu, row 7: no question, answer;"),
    ],
)
def test_a_bad_row_is_named(monkeypatch, changes, message):
    bad = {key: value for key, value in (ROW | changes).items() if value is not None}
    for source in ("packaged_rows", "hub_rows"):
        monkeypatch.setattr(mmlu, source, lambda *_: [ROW] * 7 + [bad])
    with pytest.raises(UserError, match=message.replace("mmlu, row", "owner/mmlu, row")):
        load_mmlu("owner/mmlu")
    with pytest.raises(UserError, match=message.replace("mmlu, row", "packaged, row")):
        load_mmlu()


def test_a_data_set_is_loaded_by_datasets(tmp_path, monkeypatch):
    """A folder with the config `all` goes the way of `cais/mmlu` through
    `datasets.load_dataset`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub" / "all").mkdir(parents=True)
    datasets.Dataset.from_list([ROW] * 2).to_parquet(
        tmp_path / "hub" / "all" / "test-00000-of-00001.parquet"
    )
    card = "---\nconfigs:\n- config_name: all\n  data_files:\n  - split: test\n    path: all/test-*\n---\n"
    (tmp_path / "hub" / "README.md").write_text(card)
    assert load_mmlu(str(tmp_path / "hub")) == [
        multiple_choice(ROW, "", index) for index in range(2)
    ]
    with pytest.raises(UserError, match="cannot load questions '.*nowhere'"):
        load_mmlu(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("seed", range(4))
def test_spellings_of_one_question_stay_on_one_side(seed):
    texts = [f"Which gas, number {i}, is noble?" for i in range(20)]
    twins = [text.replace(",", "").replace("?", ":").upper() for text in texts]
    parts = split(some(texts + twins), 20, 20, seed)
    sides = [{question.index % 20 for question in part} for part in parts.values()]
    assert len(sides[0]) == len(sides[1]) == 10 and not sides[0] & sides[1]


def test_the_whole_of_mmlu_and_the_papers_split():
    questions = load_mmlu()
    assert len(questions) == 14_042 and len({question.subject for question in questions}) == 57
    assert [question.index for question in questions] == list(range(14_042))
    train, test = split(select(questions, 2000), 12_642, 1_400, 42).values()
    assert (len(train), len(test)) == (12_642, 1_400)
    assert not {question.question for question in train} & {question.question for question in test}
    assert {question.subject for question in test} == {question.subject for question in train}


def test_select():
    questions = some(["one two three"]) + some(["one"], "virology")
    assert select(questions, 7) == questions and select(questions, 6) == questions[1:]
    assert select(questions, 9, ["virology"]) == questions[:1]
    with pytest.raises(
        UserError,
        match=r"excluded_subjects: no subject is called 'virolgy'; did you mean 'virology'\?",
    ):
        select(questions, 9, ["virolgy"])


@settings(max_examples=40)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60), st.integers(0, 5), st.data())
def test_no_text_is_on_both_sides_of_the_split(texts, seed, data):
    questions = some(texts)
    n_test = data.draw(st.integers(1, len(questions) - 1))
    n_train = data.draw(st.integers(1, len(questions) - n_test))
    try:
        train, test = split(questions, n_train, n_test, seed).values()
    except UserError:  # texts that are repeated too often for these numbers
        assume(False)
    assert (len(train), len(test)) == (n_train, n_test)
    assert len({question.index for question in train + test}) == n_train + n_test
    assert not {question.question for question in train} & {question.question for question in test}
    assert split(questions, n_train, n_test, seed) == {"train": train, "test": test}


@settings(max_examples=30)
@given(st.integers(2, 80), st.integers(0, 5), st.data())
def test_every_question_can_be_used_where_no_text_repeats(n, seed, data):
    n_test = data.draw(st.integers(1, n - 1))
    train, test = split(some(map(str, range(n))), n - n_test, n_test, seed).values()
    assert sorted(question.index for question in train + test) == list(range(n))


def test_too_few_questions():
    with pytest.raises(UserError, match="3 questions are too few for 1 training and 3 test rows"):
        split(some("abc"), 1, 3, 0)
    with pytest.raises(
        UserError, match="too few for 3 training and 1 test rows: raise ablation.max_words"
    ):
        split(some("abc"), 3, 1, 0)
